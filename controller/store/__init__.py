"""The controller's memory on disk: one small contract, a store per file.

`base.py` is the contract, `sqlite.py` the durable store, `memory.py` the obvious one
that tests and the simulator use, `saver.py` the door for an event loop.
"""
