"""How a device runs its tasks: one contract, an implementation per file.

`process` by the guard, `simulated` by a timer. Empty of imports: the guard loads its
siblings through this package's parent, and a virtual device needs no process code.
"""
