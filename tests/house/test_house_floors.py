"""Who imports whom: the floors hold, no rings, no foreign weight, and the agent starts bare."""

from __future__ import annotations

import subprocess
import sys

import pytest
from house_floors import cycles, foreign_imports, upward_imports
from house_source import ROOT, house_of, none_of, the_house

STANDARD_LIBRARY = frozenset(sys.stdlib_module_names)

# Top-level names that a Pi with the base install doesn't have; sqlite3 it has, and must not need.
HEAVY = (
    "numpy fastapi starlette pydantic uvicorn uvloop httptools amqtt gmqtt cronsim"
    " sqlite3 aiosqlite sqlalchemy psycopg psycopg2 asyncpg"
)


def test_imports_go_down_or_sideways_inside_one_package() -> None:
    none_of(upward_imports(the_house()))


def test_imports_make_no_ring() -> None:
    none_of(cycles(the_house()))


def test_other_peoples_packages_are_imported_only_where_the_table_says() -> None:
    none_of(foreign_imports(the_house(), STANDARD_LIBRARY))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("protocol/x.py", "import firmware_profiles"),
        ("protocol/x.py", "def f():\n    from live.clock import now"),
        ("edge_agent/core/x.py", "from edge_agent.journal import Journal"),
        ("edge_agent/journal.py", "from live import settings"),
        ("edge_agent/app.py", "from controller.core import records"),
        ("controller/api/x.py", "import edge_agent.core.runs"),
        ("controller/scheduler/x.py", "from controller.core.records import Job"),
        ("controller/store/x.py", "if TYPE_CHECKING:\n    from ..app import App"),
        ("live/x.py", "from edge_agent.core import agent"),
        ("broker/model.py", "from . import serve"),
        ("sim/world.py", "import live.driver"),
        ("sim/world.py", "from controller.store import memory"),
        ("live/x.py", "import tests.helpers"),
        ("controller/app.py", "import fleetmuster.cli"),
    ],
)
def test_an_import_that_goes_up_is_found(path: str, text: str) -> None:
    assert upward_imports(house_of({path: text, "broker/serve.py": "", "tests/helpers.py": ""})) != []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("edge_agent/core/x.py", "from protocol.core import Event\nfrom . import events"),
        (
            "edge_agent/app.py",
            "import live.driver, edge_agent.core.agent, edge_agent.journal, firmware_profiles",
        ),
        ("controller/core/x.py", "from controller.scheduler.view import View"),
        (
            "sim/world.py",
            "from broker.model import Broker\nimport edge_agent.core.agent, controller.core.controller",
        ),
        ("sim/cli.py", "import live.driver, sim.devices"),
        ("fleetmuster/up.py", "import controller.app, edge_agent.app, broker.serve, sim.cli"),
    ],
)
def test_an_import_that_goes_down_is_not_blamed(path: str, text: str) -> None:
    assert upward_imports(house_of({path: text})) == []


def test_a_ring_is_found_even_under_type_checking() -> None:
    ring = {
        "live/a.py": "from live import b",
        "live/b.py": "from . import c",
        "live/c.py": "if TYPE_CHECKING:\n    from live.a import A",
    }
    assert cycles(house_of(ring)) == ["live.a -> live.b -> live.c -> live.a"]


def test_a_foreign_package_in_the_wrong_place_is_found() -> None:
    house = house_of({"edge_agent/core/x.py": "import numpy", "controller/core/x.py": "import numpy, os"})
    assert foreign_imports(house, STANDARD_LIBRARY) == [
        "edge_agent/core/x.py:1: edge_agent.core.x may not import numpy"
    ]


BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in blocked:
            raise ImportError("blocked: " + name)
blocked = set(sys.argv[1].split()) | {"_sqlite3"}
sys.meta_path.insert(0, Block())
import importlib
importlib.import_module(sys.argv[2])
"""


def run_blocked(module: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", BLOCKED, HEAVY, module]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("module", ["edge_agent.app", "edge_agent.cli", "fleetmuster.cli"])
def test_the_base_install_is_enough_for(module: str) -> None:
    done = run_blocked(module)
    assert done.returncode == 0, done.stderr


def test_the_block_blocks() -> None:
    done = run_blocked("numpy")
    assert done.returncode != 0 and "blocked: numpy" in done.stderr
    assert "blocked: sqlite3" in run_blocked("sqlite3").stderr
