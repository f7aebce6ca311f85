"""Switches: how a rule of the protocol is taken out of production code, for a test only.

A `Mutation` names one clause, says what is removed, which story catches it and what that
story must find. Switching it off replaces methods, constants or table entries and puts them
back, whatever happens. Where a second rule covers the same fault, its switch is thrown too
and `also` says which: the clause alone would not be seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Swap:
    """One replacement: `make` gets what was there. `holder` is a class, a module or a dict."""

    holder: Any
    name: Any
    make: Callable[[Any], Any]

    def get(self) -> Any:
        return self.holder[self.name] if isinstance(self.holder, dict) else getattr(self.holder, self.name)

    def put(self, value: Any) -> None:
        if isinstance(self.holder, dict):
            self.holder[self.name] = value
        else:
            setattr(self.holder, self.name, value)


@dataclass(frozen=True)
class Mutation:
    """One clause that can be switched off."""

    name: str
    removed: str
    story: str
    finds: str
    """Names of invariants, separated by blanks; the story finds these and no others."""
    swaps: tuple[Swap, ...]
    also: str = ""

    @property
    def rule(self) -> str:
        return self.name.split()[0]

    @contextmanager
    def switch_off(self) -> Iterator[None]:
        done: list[tuple[Swap, Any]] = []
        try:
            for swap in self.swaps:
                original = swap.get()
                swap.put(swap.make(original))
                done.append((swap, original))
            yield
        finally:
            for swap, original in reversed(done):
                swap.put(original)


def instead(holder: Any, name: Any, replacement: Any) -> Swap:
    """Replaces without looking at what was there."""
    return Swap(holder, name, lambda original: replacement)


def does_nothing(holder: Any, name: Any, value: Any = None) -> Swap:
    return instead(holder, name, lambda *arguments, **named: value)
