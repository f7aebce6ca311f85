"""The `fm` command and its remote client: the only package a person types at.

Rule: start is cheap. Nothing heavier than argparse is imported before the command is
known, and nothing outside the standard library ever (`up` and `controller` are
dispatched to packages of their own). It knows the controller only through its REST API.
"""

__version__ = "0.1.0"
