"""The agent of one device: a pure core, leaves that touch the machine, and the guard.

This file stays empty of imports: the guard, a process of its own with a few megabytes,
loads its siblings through this package.
"""
