"""A real fleet for tests: `fm up` as a child process, its API, its devices' process ids."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fleetmuster.client import RemoteClient

READY_S = 60.0


def wait_for(condition: Callable[[], Any], timeout_s: float, what: str) -> Any:
    """The first true answer of `condition`; `AssertionError` after the deadline."""
    until = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < until, f"not within {timeout_s} s: {what}"
        time.sleep(0.02)


class LiveFleet:
    """A running `fm up`."""

    def __init__(self, data: Path, *arguments: str, environment: dict[str, str] | None = None) -> None:
        self.data = data
        self.arguments = arguments
        self.environment = os.environ | {"XDG_CONFIG_HOME": str(data.parent / "config")} | (environment or {})
        self.process: subprocess.Popen[str] | None = None
        self.extra: list[subprocess.Popen[bytes]] = []
        self.ready: dict[str, str] = {}
        self.before: tuple[str, ...] = ()
        """Words in front of its command line, as of `unshare`."""

    def start(self) -> None:
        command = [sys.executable, "-m", "fleetmuster", "up", "--json", "--data", str(self.data)]
        self.process = subprocess.Popen(
            [*self.before, *command, *self.arguments],
            stdout=subprocess.PIPE,
            stderr=open(self.data.parent / "up.log", "a"),  # noqa: SIM115
            text=True,
            env=self.environment,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"up said nothing:\n{self.talk()}"
        self.ready = json.loads(line)

    def talk(self) -> str:
        logs = sorted((self.data / "logs").glob("*.log")) if (self.data / "logs").exists() else []
        paths = [self.data.parent / "up.log", *logs]
        return "\n".join(f"--- {p.name}\n{p.read_text(errors='replace')[-3000:]}" for p in paths)

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        for other in self.extra:
            other.terminate()
            other.wait(15)
        return code

    @property
    def api(self) -> RemoteClient:
        return RemoteClient(self.ready["http"], self.ready["token"])

    # ------------------------------------------------------------- processes

    def pid_of(self, device: str, what: str) -> int:
        """Of the device's `agent` or `guard`."""
        return int((self.data / "agents" / device / f"{what}.pid").read_text().split()[0])

    def child_pid(self, words: str) -> int:
        """Of a child of `up` whose command line holds `words`."""
        assert self.process is not None
        found = subprocess.run(
            ["pgrep", "-P", str(self.process.pid), "-f", words], capture_output=True, text=True, check=False
        )
        return int(found.stdout.split()[0])

    def kill_device(self, device: str) -> None:
        """Agent and guard at once, as a power cut would."""
        for pid in (self.pid_of(device, "agent"), self.pid_of(device, "guard")):
            os.kill(pid, signal.SIGKILL)

    def start_agent(self, device: str) -> None:
        config = self.data / "agents" / device / "agent.toml"
        log = open(self.data / "logs" / f"{device}.log", "ab")  # noqa: SIM115
        self.extra.append(
            subprocess.Popen(
                [sys.executable, "-m", "edge_agent.cli", "run", "--config", str(config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        )

    # ------------------------------------------------------------- work

    def submit(self, *command: str, **more: Any) -> str:
        """The task id of a one-task job."""
        task = {"runtime": "process", "command": list(command)} | more.pop("task", {})
        with self.api as api:
            return f"{api.submit_job({'kind': 'batch', 'count': 1, 'task': task} | more).job['id']}.0"

    def task(self, task: str) -> Any:
        with self.api as api:
            return api.task(task)

    def until(self, task: str, timeout_s: float, **wanted: Any) -> Any:
        """The task once its fields are as wanted."""

        def as_wanted() -> Any:
            present = self.task(task)
            return present if all(present.get(k) == v for k, v in wanted.items()) else None

        try:
            return wait_for(as_wanted, timeout_s, f"task {task} with {wanted}")
        except AssertionError as error:
            raise AssertionError(f"{error}; it is {self.task(task)}\n{self.talk()}") from None

    def output(self, task: str) -> bytes:
        with self.api as api:
            return api.output(task).data

    def state_of(self, device: str) -> str:
        with self.api as api:
            return str(api.device(device)["state"])


@contextmanager
def live_fleet(data: Path, *arguments: str) -> Iterator[LiveFleet]:
    """A fleet on free ports that is gone afterwards, whatever happens."""
    fleet = LiveFleet(data, "--http", "127.0.0.1:0", "--mqtt", "127.0.0.1:0", *arguments)
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.stop()
