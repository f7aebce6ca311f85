"""A device dies at once (SIGKILL of agent and guard): when does its task run elsewhere?

`at_least_one`: from the kill to the clock of the second attempt. `at_most_one`: from the last
heartbeat that was granted, as an onlooker at the broker saw it, to the same; it must not be
before the hold (lease x 1.03 + 1 s) has passed, and should be within 5 s after it. Every
repetition kills a device of its own, since one that flaps is given more patience.
Probe: the same kill to the will's arrival at the onlooker; nobody can know earlier.
Run: `python -m benchmarks.bench_failover`.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench_link import private_mosquitto
from benchmarks.fleet import Fleet, fleet, until
from benchmarks.report import Result, say, show
from benchmarks.watch import Watch, watching
from protocol.limits import hold_ms

SHORT_LEASE_MS, LONG_LEASE_MS = 6_000, 30_000
SLACK_MS = 5_000
AT_LEAST_ONE_MS = 1_000.0


@dataclass(slots=True)
class Death:
    """A task whose first device was killed."""

    task: str
    device: str
    stamps: Path
    killed_ns: int
    granted_ns: int

    def second(self) -> int:
        """The clock of the second attempt's process; 0 before it runs."""
        lines = self.stamps.read_text().split() if self.stamps.exists() else []
        return int(lines[1].split(":")[1]) if len(lines) > 1 else 0


def kill_under(running: Fleet, watch: Watch, name: str, guarantee: str, lease_ms: int) -> Death:
    """Runs a task, lets it be granted for a while, then kills its device."""
    stamps = running.folder / "stamps" / name
    script = f"echo $FM_ATTEMPT:$(date +%s%N) >> {stamps}; exec sleep 600"
    task = running.submit(
        "sh", "-c", script, kind="service", guarantee=guarantee, lease_ms=lease_ms,
        task={"stop_grace_ms": 500},
    )  # fmt: skip
    device = until(lambda: running.api.task(task).get("device"), 20, f"{task} placed")
    until(lambda: stamps.exists() and stamps.read_text(), 20, f"{task} running")
    time.sleep(1.0 + (hash(name) % 7) / 7)
    pids = [running.pid_of(device, what) for what in ("agent", "guard")]
    killed_ns = time.time_ns()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)  # what was in the broker when the device died is heard
    return Death(task, device, stamps, killed_ns, watch.last_granted_ns(device))


def at_least_one(running: Fleet, watch: Watch, repeats: int) -> list[tuple[float, float]]:
    """Milliseconds from the kill to the second attempt, and to the will."""
    times = []
    for number in range(repeats):
        death = kill_under(running, watch, f"alo{number}", "at_least_one", LONG_LEASE_MS)
        second_ns = until(death.second, 60, "the second attempt")
        will_ns = watch.will_ns(death.device)
        times.append(((second_ns - death.killed_ns) / 1e6, (will_ns - death.killed_ns) / 1e6))
        running.api.cancel_job(death.task.partition(".")[0])
    return times


def after_grant_ms(death: Death, limit_s: float) -> float:
    """Milliseconds from the last granted heartbeat to the second attempt."""
    return (until(death.second, limit_s, "the second attempt") - death.granted_ns) / 1e6


def at_most_one(running: Fleet, watch: Watch, repeats: int) -> tuple[list[float], float]:
    """The same after the last grant: of the short leases, and of one long lease that waits meanwhile."""
    long = kill_under(running, watch, "long", "at_most_one", LONG_LEASE_MS)
    times = []
    for number in range(repeats):
        death = kill_under(running, watch, f"amo{number}", "at_most_one", SHORT_LEASE_MS)
        times.append(after_grant_ms(death, 60))
        running.api.cancel_job(death.task.partition(".")[0])
    return times, after_grant_ms(long, 90)


def show_hold(what: str, times: list[float], lease_ms: int) -> None:
    """Earliest and latest of them, each against its bound."""
    hold = hold_ms(lease_ms)
    show(
        Result(f"{what}, earliest after the last grant", min(times), "ms", hold, at_least=True),
        Result(f"{what}, latest after the last grant", max(times), "ms", hold + SLACK_MS),
        Result(f"{what}, median after its hold", statistics.median(times) - hold, "ms"),
    )


@contextmanager
def lab(agents: int) -> Iterator[tuple[Fleet, Watch]]:
    """A fleet of its own for each series: ten devices lost within a lease would freeze failover (C4)."""
    with private_mosquitto() as port, watching(port) as watch:
        broker = f"mqtt://127.0.0.1:{port}"
        with fleet("--agents", str(agents), "--devices", "0", "--broker", broker) as running:
            stamps = running.folder / "stamps"
            stamps.mkdir()
            stamps.chmod(0o777)  # tasks run under another uid
            yield running, watch


def main() -> None:
    parser = argparse.ArgumentParser(description="failover after a device's death")
    parser.add_argument("--repeats", type=int, default=7, help="deaths under each guarantee")
    repeats = min(parser.parse_args().repeats, 8)
    say("every repetition kills a device for good")
    with lab(repeats + 2) as (running, watch):
        deaths = at_least_one(running, watch, repeats)
    times, wills = [t for t, _ in deaths], [w for _, w in deaths]
    say(f"at_least_one, in ms: {' '.join(f'{t:.0f}' for t in times)}")
    show(
        Result("kill to running elsewhere, at_least_one: p50", statistics.median(times), "ms",
               AT_LEAST_ONE_MS, probe=statistics.median(wills)),
        Result("kill to running elsewhere, at_least_one: worst", max(times), "ms"),
    )  # fmt: skip
    with lab(repeats + 3) as (running, watch):
        short, long = at_most_one(running, watch, repeats)
    say(f"at_most_one, lease 6 s, after the last grant, in ms: {' '.join(f'{t:.0f}' for t in short)}")
    show_hold("at_most_one, lease 6 s", short, SHORT_LEASE_MS)
    show_hold("at_most_one, lease 30 s", [long], LONG_LEASE_MS)


if __name__ == "__main__":
    main()
