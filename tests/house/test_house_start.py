"""The command line starts light: counted in modules, since a timed test tells of the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest
from house_source import ROOT

# A bare argparse + json + tomllib start brings in 42, http.client and ssl 41 more; at about a third of
# a millisecond each on a laptop this bound keeps a start far below what a person notices.
NEW_MODULES_MAX = 130

LATE = (
    "numpy fastapi starlette pydantic uvicorn uvloop httptools amqtt gmqtt paho psutil cbor2"
    " asyncio sqlite3 multiprocessing controller edge_agent broker sim"
).split()

COUNT = """
import sys
before = set(sys.modules)
import fleetmuster.cli
print("\\n".join(sorted(set(sys.modules) - before)))
"""


def started() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", COUNT],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("heavy", LATE)
def test_the_command_starts_without(heavy: str) -> None:
    assert [name for name in started() if name.split(".")[0] == heavy] == []


def test_the_command_starts_with_few_modules() -> None:
    names = started()
    assert "fleetmuster.cli" in names
    assert len(names) <= NEW_MODULES_MAX, "\n".join(names)
