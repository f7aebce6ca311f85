"""Pure files stay pure: no clock, no dice, no I/O, no order of a set."""

from __future__ import annotations

import pytest
from house_purity import impure, is_pure
from house_source import house_of, none_of, the_house


def test_pure_files_touch_nothing() -> None:
    none_of(impure(the_house()))


def test_the_cores_are_among_the_pure_files() -> None:
    assert is_pure("edge_agent/core/agent.py") and is_pure("controller/core/controller.py")
    assert not is_pure("sim/cli.py") and not is_pure("edge_agent/journal.py")


@pytest.mark.parametrize(
    "text",
    [
        "import asyncio",
        "import os.path",
        "from time import monotonic",
        "from datetime import datetime",
        "def f():\n    import threading",
        "from random import randrange",
        "import random\nx = random.random()",
        "import random\nx = random.Random()",
        "import numpy as np\nx = np.random.rand(3)",
        "import numpy as np\nx = np.random.default_rng()",
        "def f(x):\n    print(x)",
        "x = open('f')",
        "x = hash('f')",
        "x = id(object())",
        "x = sorted(y, key=id)",
        "for x in {1, 2}: pass",
        "x = [y for y in set(z)]",
        "x = {y: 1 for y in {a for a in b}}",
        "def f(x: set[int]):\n    for y in x: pass",
        "def f(x: 'frozenset[int] | None'):\n    return list(x)",
        "def f():\n    x = set()\n    return [*x]",
        "def f(a, b):\n    x = set(a)\n    y = x - b\n    return tuple(y)",
        "def f(a, b):\n    for x in a.keys() - b.keys(): pass",
        "class A:\n    def g(self):\n        self.x: set[int] = y\n    def f(self):\n      yield from self.x",
        "@dataclass\nclass A:\n    x: set[int]\ndef f(a: A):\n    for y in a.x: pass",
        "def f() -> set[int]: ...\ndef g():\n    for x in f(): pass",
        "def f(x: set[str]):\n    return ','.join(x)",
        "def f(x: set[str]):\n    return x.pop()",
        "def f(x: set[str]):\n    a, b = x",
        "def f(x: set[str]):\n    return min(x, key=len)",
        "def f(x: set[str], y: set[str]):\n    for z in x.union(y): pass",
        "x = {1}\ndef f():\n    return [y for y in x]",
    ],
)
def test_an_impure_line_is_found(text: str) -> None:
    assert impure(house_of({"controller/core/x.py": text})) != []


@pytest.mark.parametrize(
    "text",
    [
        "import random\ndef f(rng: random.Random): return rng.random()",
        "import random\nx = random.Random(3)",
        "import numpy as np\nx = np.random.default_rng(3)",
        "def f(x: set[int]):\n    for y in sorted(x): pass",
        "def f(x: set[int]):\n    return sorted(y for y in x if y)",
        "def f(x: set[int]):\n    return any(y > 1 for y in x), len(x), min(x), 3 in x",
        "def f(x: set[int]):\n    return {y + 1 for y in x}",
        "def f(x: dict[str, set[int]]):\n    for y in x: pass",
        "def f(x: list[int]):\n    x.pop()\n    a, b = x",
        "def f(self, id): return self.id(id)",
    ],
)
def test_a_pure_line_is_not_blamed(text: str) -> None:
    assert impure(house_of({"controller/core/x.py": text})) == []


@pytest.mark.parametrize(
    "text",
    [
        "from datetime import datetime\nx = datetime.now()",
        "from datetime import datetime, UTC\nx = datetime.now(UTC)",
        "import datetime\nx = datetime.date.today()",
        "from datetime import datetime\nx = datetime.fromtimestamp(0)",
        "def f(x): return x.astimezone()",
        "def f(x): return x.timestamp()",
        "import time",
    ],
)
def test_the_calendar_asks_no_clock(text: str) -> None:
    assert impure(house_of({"controller/core/calendar.py": text})) != []


def test_the_calendar_alone_reckons_with_dates() -> None:
    text = "from datetime import timedelta\ndef f(x, zone): return x.astimezone(zone) + timedelta(1)"
    assert impure(house_of({"controller/core/calendar.py": text})) == []
    assert impure(house_of({"controller/core/cron.py": text})) != []


def test_files_of_the_world_may_do_what_the_world_does() -> None:
    assert impure(house_of({"sim/cli.py": "import asyncio", "live/driver.py": "import time"})) == []
