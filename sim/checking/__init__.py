"""Checkers of the invariants, each an observer that trusts nobody."""
