"""Measurements, each beside a probe of the machine it ran on. All: `python -m benchmarks`.

Not tests: nothing here passes or fails, and nothing of it is shipped.
"""
