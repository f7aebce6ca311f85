"""Measurements, each beside a probe of the machine it ran on. Run as `python -m benchmarks.<name>`.

Not tests: nothing here passes or fails, and nothing of it is shipped.
"""
