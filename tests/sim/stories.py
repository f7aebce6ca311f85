"""All stories by name."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import stories_controller
import stories_device
import stories_leaders
import stories_moves
import stories_placement
import stories_returns
import stories_runs
import stories_work


def _of(module: ModuleType) -> dict[str, Callable[[], set[str]]]:
    found = {}
    for name, value in vars(module).items():
        if getattr(value, "__module__", "") == module.__name__ and callable(value) and not name[0].isupper():
            if value.__annotations__.get("return") == "set[str]" and not value.__code__.co_argcount:
                found[name] = value
    return found


MODULES = (
    stories_device,
    stories_runs,
    stories_controller,
    stories_leaders,
    stories_returns,
    stories_work,
    stories_placement,
    stories_moves,
)
STORIES = {name: story for module in MODULES for name, story in _of(module).items()}
