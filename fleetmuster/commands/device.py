"""`fm device`: the machines of the fleet; let them join, rest, leave.

Rule: a new device's credential exists only in the answer that is being printed, so the
place it goes to is opened before it is asked for, and is never somebody else's file.
"""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping

from fleetmuster.commands.several import confirm_many, for_each
from fleetmuster.exits import CommandError, Exit, usage
from fleetmuster.quantities import show_cpu, show_duration, show_memory, show_rate
from fleetmuster.records import Number, RemoteAccelerator, RemoteDevice
from fleetmuster.session import Session
from fleetmuster.tables import Column

_COLUMNS = (
    Column("ID", fixed=True),
    Column("STATE"),
    Column("FLAGS"),
    Column("PROFILE"),
    Column("CPU FREE/ALL", right=True),
    Column("MEMORY FREE/ALL", right=True),
    Column("HEARD", right=True),
    Column("RUNTIMES"),
)
_ROOM = (
    Column(""),
    Column("CPU", right=True),
    Column("MEMORY", right=True),
    Column("DISK", right=True),
    Column("GPU", right=True),
    Column("UP", right=True),
    Column("DOWN", right=True),
    Column("SLOTS", right=True),
)
_ROOM_FIELDS = ("cpu_milli", "memory_mib", "disk_mib", "gpu_milli", "up_kbit_s", "down_kbit_s")


def list_(session: Session, options: Namespace) -> Exit:
    devices = list(session.client.devices(options.limit))
    if session.console.json_wanted:
        session.console.json(devices)
    else:
        session.console.table(_COLUMNS, [_row(device) for device in devices])
        if not devices:
            session.console.say("no device yet; let one join: fm device add ID -o agent.toml")
    return Exit.OK


def show(session: Session, options: Namespace) -> Exit:
    device = session.client.device(options.id)
    console = session.console
    if console.json_wanted:
        console.json(device)
        return Exit.OK
    console.facts(
        [
            ("id", device["id"]),
            ("state", device.get("state") or ""),
            ("flags", _flags(device)),
            ("doubt", device.get("doubt") or ""),
            ("taints", ", ".join(device.get("taints") or [])),
            ("health", _health(device)),
            ("profile", device.get("profile") or ""),
            ("labels", ", ".join(f"{key}={value}" for key, value in (device.get("labels") or {}).items())),
            ("runtimes", ", ".join(device.get("runtimes") or [])),
            ("accelerators", ", ".join(_accelerator(each) for each in device.get("accelerators") or [])),
            (
                "extras",
                ", ".join(f"{amount} {name}" for name, amount in (device.get("extras") or {}).items()),
            ),
            ("core speed", _core_speed(device)),
            ("containment", device.get("containment") or ""),
            ("limits", device.get("limits") or ""),
            ("version", device.get("version") or ""),
            ("tasks", str(device.get("tasks") or "")),
            ("session", str(device.get("session") or "")),
            ("heard", _heard(device) and f"{_heard(device)} ago"),
        ]
    )
    amounts: dict[str, Mapping[str, Number | None] | None] = {
        "capacity": device.get("capacity"),
        "reserved": device.get("reserved"),
        "free": device.get("free"),
        "used": device.get("used"),
    }
    console.block("\n")
    console.table(_ROOM, [_room_row(name, row) for name, row in amounts.items() if row])
    return Exit.OK


def add(session: Session, options: Namespace) -> Exit:
    """Prints the device's agent.toml, or writes it to --out-file."""
    if options.out_file is None and session.console.json_wanted:
        session.console.json(session.client.add_device(options.id))
        return Exit.OK
    if options.out_file is None:
        session.console.block(_ended(session.client.add_device(options.id)["agent_toml"]))
        session.console.say("this was shown only once: keep it as the device's agent.toml, mode 0600")
        return Exit.OK
    client = session.client  # chosen first: a missing context must not leave an empty file
    handle = _opened(options.out_file)
    try:
        text = _ended(client.add_device(options.id)["agent_toml"])
    except BaseException:
        os.close(handle)
        os.unlink(options.out_file)
        raise
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        session.console.block(text)  # better on the terminal than lost
        raise CommandError(
            Exit.FAILED,
            f"{options.out_file} can't be written: {error.strerror}",
            next_step="keep what stands on stdout: it is shown only once",
        ) from error
    session.console.say(
        f"{options.out_file} written; copy it to the device, then: edge-agent run --config {options.out_file}"
    )
    return Exit.OK


def remove(session: Session, options: Namespace) -> Exit:
    ids: list[str] = list(dict.fromkeys(options.ids))
    if not options.yes:
        confirm_many(session, f"remove {len(ids)} device{'s' * (len(ids) > 1)}", ids, len(ids))
    return for_each(session, ids, session.client.remove_device, "removed; its credential no longer works")


def cordon(session: Session, options: Namespace) -> Exit:
    return for_each(session, options.ids, session.client.cordon, "cordoned")


def uncordon(session: Session, options: Namespace) -> Exit:
    return for_each(session, options.ids, session.client.uncordon, "uncordoned")


def drain(session: Session, options: Namespace) -> Exit:
    return for_each(session, options.ids, session.client.drain, "draining: its tasks move as they can")


def taint(session: Session, options: Namespace) -> Exit:
    """Sets marks, one after the other."""

    def mark(taint: str) -> None:
        session.client.taint(options.id, taint)

    return for_each(session, options.taints, mark, f"set on {options.id}")


def untaint(session: Session, options: Namespace) -> Exit:
    """Takes marks away, one after the other."""

    def unmark(taint: str) -> None:
        session.client.untaint(options.id, taint)

    return for_each(session, options.taints, unmark, f"taken off {options.id}")


def ping(session: Session, options: Namespace) -> Exit:
    rtt_us = session.client.ping(options.id)
    if session.console.json_wanted:
        session.console.json({"device": options.id, "rtt_us": rtt_us})
    else:
        session.console.line(f"{rtt_us / 1000:.2f} ms")
    return Exit.OK


VERBS = {
    "list": list_,
    "show": show,
    "add": add,
    "remove": remove,
    "cordon": cordon,
    "uncordon": uncordon,
    "drain": drain,
    "taint": taint,
    "untaint": untaint,
    "ping": ping,
}


def _opened(path: str) -> int:
    """A new private file. Raises `CommandError` if there is one already, or none can be made."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise CommandError(
            Exit.CONFLICT,
            f"{path} exists already",
            "it may hold another device's credential",
            "choose another name",
        ) from error
    except OSError as error:
        raise usage(f"{path} can't be written: {error.strerror}") from error


def _ended(text: str) -> str:
    return text if text.endswith("\n") else text + "\n"


def _row(device: RemoteDevice) -> list[str]:
    free, capacity = device.get("free") or {}, device.get("capacity") or {}
    return [
        device["id"],
        device.get("state") or "",
        _flags(device),
        device.get("profile") or "",
        f"{show_cpu(free.get('cpu_milli', 0))}/{show_cpu(capacity.get('cpu_milli', 0))}",
        f"{show_memory(free.get('memory_mib', 0))} / {show_memory(capacity.get('memory_mib', 0))}",
        _heard(device),
        ",".join(device.get("runtimes") or []),
    ]


def _room_row(name: str, room: Mapping[str, Number | None]) -> list[str]:
    """An amount that nobody tells is no 0: a device measures processor, memory and disk only."""
    shows = (show_cpu, show_memory, show_memory, show_cpu, show_rate, show_rate)
    amounts = [room.get(field) for field in _ROOM_FIELDS]
    told = ["-" if amount is None else show(amount) for show, amount in zip(shows, amounts, strict=True)]
    return [name, *told, _slots(name, room)]


def _slots(name: str, room: Mapping[str, Number | None]) -> str:
    """A capacity of 0 is no bound of the device's own; `free` is then what its document can still list."""
    slots = room.get("slots")
    if name == "capacity" and not slots:
        return "no bound"
    return "-" if slots is None else str(slots)


def _flags(device: RemoteDevice) -> str:
    flags = {
        "cordoned": device.get("cordoned"),
        "draining": device.get("draining"),
        "quarantined": device.get("quarantined"),
        "tainted": device.get("taints"),
    }
    return ",".join(name for name, is_set in flags.items() if is_set)


def _accelerator(said: RemoteAccelerator) -> str:
    """Its name, its model, and how much of it there is when that isn't a whole one."""
    model, milli = said.get("model") or "", said.get("milli") or 1000
    share = show_cpu(milli) if milli != 1000 else ""
    more = ", ".join(word for word in (model, share) if word)
    return (said.get("name") or "") + (f" ({more})" if more else "")


def _core_speed(device: RemoteDevice) -> str:
    milli = device.get("core_speed_milli") or 1000
    return f"{show_cpu(milli)} of the reference core" if milli != 1000 else ""


def _health(device: RemoteDevice) -> str:
    """Only what says something: trouble as words, then the figures."""
    health = device.get("health")
    if not health:
        return ""
    flags = {
        "throttled": health.get("throttled"),
        "undervoltage": health.get("undervoltage"),
        "on battery": health.get("on_battery"),
        "metered link": health.get("metered"),
    }
    figures = {
        f"{health.get('temperature_c')} °C": health.get("temperature_c"),
        f"battery {health.get('battery_percent')} %": health.get("battery_percent"),
        f"wear {health.get('wear_percent')} %": health.get("wear_percent"),
        f"{health.get('latency_ms')} ms": health.get("latency_ms"),
    }
    return ", ".join(word for word, said in (flags | figures).items() if said) or "nothing to report"


def _heard(device: RemoteDevice) -> str:
    """How long ago the last heartbeat came; empty if never."""
    ago_ms = device.get("last_heartbeat_ms_ago")
    return "" if ago_ms is None else show_duration(ago_ms)
