"""A real fleet to measure: `fm up` as a child process in a fresh folder, and what its processes cost.

Rule of this file: it starts, asks and stops, and measures nothing by itself. Processor time
is that of the kernel's books (`/proc`), so a process that ended is no longer in it.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import psutil

from fleetmuster.client import RemoteClient

T = TypeVar("T")
STOP_S = 40
ROLES = {
    "controller.cli": "controller",
    "edge_agent.cli run": "agent",
    "edge_agent.cli virtual": "virtual",
    "mosquitto": "broker",
    "guard.py": "guard",
}
"""Role by a piece of the command line."""


class Fleet:
    """A running `fm up`."""

    def __init__(self, folder: Path, process: subprocess.Popen[str], ready: dict[str, str]) -> None:
        self.folder, self.process = folder, process
        self.http, self.token = ready["http"], ready["token"]
        parts = urlsplit(self.http)
        self.host, self.port = parts.hostname or "127.0.0.1", parts.port or 0
        self.api = RemoteClient(self.http, self.token, timeout_ms=60_000)

    def pid_of(self, device: str, what: str) -> int:
        """Of the device's `agent` or `guard`."""
        return int((self.folder / "data" / "agents" / device / f"{what}.pid").read_text().split()[0])

    def cpu_s(self) -> dict[str, float]:
        """Processor seconds used so far, by role."""
        used: dict[str, float] = {}
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                words = " ".join(process.cmdline())
                times = process.cpu_times()
            except psutil.Error:  # it ended while we looked
                continue
            role = next((role for piece, role in ROLES.items() if piece in words), "tasks")
            used[role] = used.get(role, 0.0) + times.user + times.system
        return used

    def online(self) -> int:
        return int((self.api.fleet().get("devices") or {}).get("online", 0))

    def submit(self, *command: str, **more: object) -> str:
        """The task id of a one-task job. `task` adds to the task, other words to the job."""
        task = {"runtime": "process", "command": list(command)} | dict(more.pop("task", {}))  # type: ignore[call-overload]
        request = {"kind": "batch", "count": 1, "task": task} | more
        return f"{self.api.submit_job(request).job['id']}.0"  # type: ignore[arg-type]


@contextmanager
def fleet(*arguments: str) -> Iterator[Fleet]:
    """A fleet on free ports, in good order gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fm-bench-"))
    folder.chmod(0o711)  # tasks run under another uid and must reach their directories
    log_path = folder / "up.log"
    command = [sys.executable, "-m", "fleetmuster", "up", "--json", "--data", str(folder / "data")]
    command += ["--http", "127.0.0.1:0", *arguments]
    if "--broker" not in arguments:
        command += ["--mqtt", "127.0.0.1:0"]
    environment = os.environ | {"XDG_CONFIG_HOME": str(folder / "config")}
    with log_path.open("w") as log:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL, text=True, env=environment
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the fleet did not start:\n{log_path.read_text()[-3_000:]}")
        yield Fleet(folder, process, json.loads(line))
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def until(condition: Callable[[], T | None], limit_s: float, what: str, step_s: float = 0.01) -> T:
    """The first answer of `condition` that is true. Ends the benchmark when none comes in time."""
    end = time.monotonic() + limit_s
    while True:
        if answer := condition():
            return answer
        if time.monotonic() > end:
            raise SystemExit(f"not within {limit_s:g} s: {what}")
        time.sleep(step_s)


def spent_ms(before: dict[str, float], after: dict[str, float], units: int) -> str:
    """Processor milliseconds per unit, by role, as words."""
    each = {role: (after[role] - before.get(role, 0.0)) / units * 1e3 for role in sorted(after)}
    return ", ".join(f"{role} {ms:.2f}" for role, ms in each.items() if ms >= 0.005) + " ms"
