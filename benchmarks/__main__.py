"""Runs the benchmarks one after another: `python -m benchmarks [NAME…]`, all without names.

Each is a process of its own, so that none measures what another left behind, and one that
ends in an error does not take the rest with it. Every one is bounded and ends by itself;
all together take about ten minutes.
"""

from __future__ import annotations

import subprocess
import sys
import time

BENCHMARKS = {
    "roundtrip": "command round trip controller to agent and back",
    "latency": "submit over REST to process running",
    "failover": "a device's death to its work running elsewhere",
    "submit": "submits a second while tasks run; one large job",
    "footprint": "an agent at rest",
    "link": "cost of one MQTT message",
    "store": "cost of one saved row",
    "placement": "choosing a device, beside a bare scan",
    "rebalance": "moves to level a fleet, and what planning them costs",
    "storm": "a third of a fleet lost at once: freeze, release, everything assigned again",
    "idle": "a day of 5,000 devices in virtual time",
    "sim": "seeds of the safety simulation in virtual time",
}


def main(names: list[str]) -> int:
    """Exit code: 0, 1 when a benchmark ended in an error, 2 for an unknown name."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        known = "\n".join(f"  {name:<10} {what}" for name, what in BENCHMARKS.items())
        print(f"no benchmark {unknown[0]!r}; there are\n{known}", file=sys.stderr)
        return 2
    failed = []
    for name in names or BENCHMARKS:
        print(f"== {name}: {BENCHMARKS[name]}", flush=True)
        begin = time.monotonic()
        if subprocess.run([sys.executable, "-m", f"benchmarks.bench_{name}"], check=False).returncode:
            failed.append(name)
        print(f"# {time.monotonic() - begin:.0f} s\n", flush=True)
    if failed:
        print(f"ended in an error: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
