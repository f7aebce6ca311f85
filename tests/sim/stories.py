"""All stories by name."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import stories_device


def _of(module: ModuleType) -> dict[str, Callable[[], set[str]]]:
    found = {}
    for name, value in vars(module).items():
        if getattr(value, "__module__", "") == module.__name__ and callable(value) and not name[0].isupper():
            if value.__annotations__.get("return") == "set[str]" and not value.__code__.co_argcount:
                found[name] = value
    return found


STORIES = _of(stories_device)
