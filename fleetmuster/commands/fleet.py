"""`fm fleet`: how many are well, what is wrong, what changes now, on one screen.

Rule: what is wrong stands at the end, next to the prompt, with the command that helps.
"""

from __future__ import annotations

from argparse import Namespace

from fleetmuster.exits import Exit
from fleetmuster.quantities import show_cpu, show_duration, show_memory
from fleetmuster.records import Number, RemoteFleet
from fleetmuster.session import Session


def overview(session: Session, options: Namespace) -> Exit:
    fleet = session.client.fleet()
    if session.console.json_wanted:
        session.console.json(fleet)
        return Exit.OK
    session.console.facts(
        [
            ("devices", _counts(fleet.get("devices"), zeros=True)),
            ("jobs", _counts(fleet.get("jobs")) or "none"),
            ("tasks", _counts(fleet.get("tasks")) or "none"),
            ("cpu", _room(fleet, "cpu_milli")),
            ("memory", _room(fleet, "memory_mib")),
            ("controller", _controller(fleet)),
            ("garbage", _counts(fleet.get("garbage"))),
        ]
    )
    _show_trouble(session, fleet)
    return Exit.OK


def unfreeze(session: Session, options: Namespace) -> Exit:
    session.client.unfreeze()
    session.console.say("failover may move work again")
    return Exit.OK


VERBS = {"overview": overview, "unfreeze": unfreeze}


def _show_trouble(session: Session, fleet: RemoteFleet) -> None:
    frozen = fleet.get("frozen")
    if frozen:
        why = f" ({frozen})" if isinstance(frozen, str) else ""
        session.console.line(f"FROZEN: failover moves nothing{why}; when it is safe: fm fleet unfreeze")
    for alarm in fleet.get("alarms") or []:
        session.console.line(f"ALARM: {_alarm(alarm)}")


def _alarm(alarm: object) -> str:
    if isinstance(alarm, dict):
        return ", ".join(f"{key} {value}" for key, value in alarm.items())
    return str(alarm)


def _counts(counts: dict[str, Number] | None, zeros: bool = False) -> str:
    shown = [f"{count:,} {name}" for name, count in (counts or {}).items() if count or zeros]
    return ", ".join(shown)


def _room(fleet: RemoteFleet, resource: str) -> str:
    capacity = (fleet.get("capacity") or {}).get(resource)
    free = (fleet.get("free") or {}).get(resource)
    if capacity is None or free is None:
        return ""
    show = show_cpu if resource == "cpu_milli" else show_memory
    return f"{show(free)} free of {show(capacity)}"


def _controller(fleet: RemoteFleet) -> str:
    uptime_ms = fleet.get("uptime_ms")
    parts = [
        f"version {fleet.get('version')}" if fleet.get("version") else "",
        f"up {show_duration(uptime_ms)}" if uptime_ms is not None else "",
        f"leader {fleet.get('leader')}" if fleet.get("leader") else "",
        f"epoch {fleet.get('epoch')}" if fleet.get("epoch") else "",
    ]
    return ", ".join(part for part in parts if part)
