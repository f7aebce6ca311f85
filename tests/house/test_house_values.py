"""Events, effects and messages are values; the guard imports its short list."""

from __future__ import annotations

import pytest
from house_source import house_of, none_of, the_house
from house_values import GUARD, assigned_values, guard_imports, loose_values


def test_values_are_slotted_dataclasses() -> None:
    none_of(loose_values(the_house()))


@pytest.mark.parametrize(
    "text",
    [
        "@dataclass\nclass RunExited(Event):\n    code: int",
        "@dataclass(frozen=True)\nclass Row:\n    code: int",
        "class RunExited(core.Event):\n    pass",
    ],
)
def test_a_value_without_slots_is_found(text: str) -> None:
    assert len(loose_values(house_of({"edge_agent/core/events.py": text}))) == 1


def test_a_slotted_value_is_not_blamed() -> None:
    text = "@dataclass(slots=True)\nclass A(Event): ...\nclass Event:\n    __slots__ = ()\nclass K(Enum): ..."
    assert loose_values(house_of({"protocol/core.py": text})) == []


def test_nobody_changes_a_value() -> None:
    none_of(assigned_values(the_house()))


VALUES = "@dataclass(slots=True)\nclass Grant(Event):\n    x: int\n"


@pytest.mark.parametrize(
    "text",
    [
        "def f(grant: Grant):\n    grant.x = 1",
        "def f(grant: 'core.Grant | None'):\n    grant.x += 1",
        "def f(event: Event):\n    del event.x",
        "def f():\n    grant = core.Grant(1)\n    grant.x = 2",
        "def f(grant: Grant):\n    object.__setattr__(grant, 'x', 1)",
    ],
)
def test_a_changed_value_is_found(text: str) -> None:
    assert len(assigned_values(house_of({"protocol/core.py": VALUES, "live/x.py": text}))) == 1


def test_a_method_that_changes_its_own_value_is_found() -> None:
    method = VALUES + "    def f(self):\n        self.x = 1\n"
    assert len(assigned_values(house_of({"protocol/core.py": method}))) == 1


def test_other_objects_may_change() -> None:
    text = "def f(grants: list[Grant], box: Box):\n    box.x = 1\n    grants.x = 2"
    assert assigned_values(house_of({"protocol/core.py": VALUES, "live/x.py": text})) == []


def test_the_guard_exists_and_imports_its_short_list() -> None:
    assert GUARD in the_house().by_module
    none_of(guard_imports(the_house()))


def test_a_guard_that_imports_more_is_found() -> None:
    files = {
        "edge_agent/guard.py": "import os, select\nfrom edge_agent.guard_frames import x",
        "edge_agent/guard_frames.py": "import struct, dataclasses\nfrom protocol import core",
        "edge_agent/guard_client.py": "import asyncio",
    }
    assert guard_imports(house_of(files)) == [
        "edge_agent/guard_frames.py:1: the guard may not import dataclasses",
        "edge_agent/guard_frames.py:2: the guard may not import protocol",
    ]
