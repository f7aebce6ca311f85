"""The agent's core: pure machines that do not know each other, dispatched by `agent.Agent`.

May import `protocol` and this package. No clock, no socket, no file, no process.
"""
