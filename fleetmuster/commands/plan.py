"""`fm plan`: what would happen if devices went, sites failed, more came, or a job came or changed.

Rule: exit 9 when something would break, 0 when not, so that a script can ask before it
acts. What breaks stands first, then what moves, then what is left. Nothing is changed,
so nothing is confirmed.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from fleetmuster.commands.job_request import blame, constraints_of, job_request, name_the_option, said_once
from fleetmuster.exits import Exit, usage
from fleetmuster.plan_records import LossLine, PlannedLine, PlanRequest, RemotePlan, RoomLine
from fleetmuster.quantities import show_cpu, show_memory
from fleetmuster.session import Session
from fleetmuster.tables import Column
from fleetmuster.wire import ApiError

ROWS_SHOWN = 20
_ANY_COMMAND = ["true"]
"""A plan runs nothing; only its size in a document would differ."""
_SHAPE = {
    "cpu_milli": "cpu",
    "memory_mib": "memory",
    "disk_mib": "disk",
    "gpu_milli": "gpu",
    "up_kbit_s": "up",
    "down_kbit_s": "down",
    "slots": "slots",
}
_CHANGED_LISTS = {"constraints": "constraint", "tolerations": "tolerate"}
_SHAPE_LISTS = {"extras": "need", "labels": "label", "runtimes": "runtime", "taints": "taint"}
_BROKEN = (Column("TASK", fixed=True), Column("JOB"), Column("DEVICE"), Column("REASON"), Column("WHY"))
_MOVED = (Column("TASK", fixed=True), Column("JOB"), Column("DEVICE"), Column("TO"))
_PLACED = (Column("TASK", fixed=True), Column("JOB"), Column("TO"))
_LOSSES = (
    Column("SITES LOST"),
    Column("DEVICES", right=True),
    Column("MOVED", right=True),
    Column("BROKEN", right=True),
    Column("RESERVED", right=True),
)


def drain(session: Session, options: Namespace) -> Exit:
    return _ask(session, options, [{"drain": options.ids}])


def lose(session: Session, options: Namespace) -> Exit:
    if not options.ids and not options.site:
        raise usage("nothing is lost", "fm plan lose DEVICE..., or --site NAME")
    changes: list[dict[str, object]] = [{"lose": {"devices": options.ids}}] if options.ids else []
    return _ask(session, options, changes + [{"lose": {"site": site}} for site in options.site])


def add(session: Session, options: Namespace) -> Exit:
    shape: dict[str, object] = {"count": options.count}
    said = {field: getattr(options, option) for field, option in _SHAPE.items()}
    capacity = {field: amount for field, amount in said.items() if amount is not None}
    if capacity:
        shape["capacity"] = capacity
    if options.profile is not None:
        shape["profile"] = options.profile
    elif options.cpu is None or options.memory is None:
        raise usage("what the devices have is not said", "say --profile NAME, or --cpu and --memory")
    for field, option in _SHAPE_LISTS.items():
        if value := getattr(options, option):
            shape[field] = said_once(option, value) if option in ("need", "label") else value
    return _ask(session, options, [{"add": shape}])


def submit(session: Session, options: Namespace) -> Exit:
    """A command may be left out: it is never run."""
    if options.stray:
        raise usage(f"fm plan submit needs -- before {options.stray[0]!r}", "or leave the command out")
    options.command = options.command or _ANY_COMMAND
    return _ask(session, options, [{"submit": job_request(options)}])


def change(session: Session, options: Namespace) -> Exit:
    """What is not said stays as it is; constraints and tolerations take the place of all it has."""
    wanted: dict[str, object] = {"job": options.id}
    amounts = {field: getattr(options, option) for field, option in _SHAPE.items()}
    resources = {field: amount for field, amount in amounts.items() if amount is not None}
    if resources:
        wanted["resources"] = resources
    if options.need:
        wanted["extras"] = said_once("need", options.need)
    for field, option in _CHANGED_LISTS.items():
        said = getattr(options, option)
        if said and getattr(options, f"no_{field}"):
            raise usage(f"--{option} and --no-{field} contradict each other", "leave one of them out")
        if said or getattr(options, f"no_{field}"):
            wanted[field] = constraints_of(said) if field == "constraints" else said
    for field in ("count", "policy"):
        if (value := getattr(options, field)) is not None:
            wanted[field] = value
    if len(wanted) == 1:
        raise usage("nothing changes", "say --count, --cpu, --memory, --constraint, --policy, ...")
    return _ask(session, options, [{"change": wanted}])


def survive(session: Session, options: Namespace) -> Exit:
    options.survive = options.sites
    return _ask(session, options, [])


VERBS = {"drain": drain, "lose": lose, "add": add, "submit": submit, "change": change, "survive": survive}


def _ask(session: Session, options: Namespace, changes: list[dict[str, object]]) -> Exit:
    request: PlanRequest = {"changes": changes}
    if options.survive:
        request["survive"] = options.survive
    try:
        plan = session.client.plan(request)
    except ApiError as error:
        _name_the_option(error)
        raise
    if session.console.json_wanted:
        session.console.json(plan)
    else:
        _show(session, plan)
    return Exit.BREACHED if plan["breaks"] else Exit.OK


def _name_the_option(error: ApiError) -> None:
    """Tells which option to change, from the pointer of a fault."""
    change, _, field = error.pointer.removeprefix("/changes/").partition("/")[2].partition("/")
    if change == "submit":
        name_the_option(error, field)
    elif change == "add":
        said = field.removeprefix("capacity/").split("/")[0]
        option = _SHAPE.get(said) or _SHAPE_LISTS.get(said) or said
        blame(error, "N" if option == "count" else f"--{option}")
    elif change == "change":
        _blame_change(error, field)
    elif change in ("drain", "lose"):
        blame(error, "--site" if field.startswith("site") else "DEVICE")
        error.next_step = "fm device list"
        if error.what.startswith("DEVICE: no device "):
            error.what = error.what.removeprefix("DEVICE: ")
            error.code = Exit.NOT_FOUND  # as fm device drain says it


def _blame_change(error: ApiError, field: str) -> None:
    said = field.removeprefix("resources/").split("/")[0]
    if said == "job":
        blame(error, "JOB")
        error.next_step = "fm job list"
        if error.what.startswith("JOB: no open job "):
            error.what = error.what.removeprefix("JOB: ")
            error.code = Exit.NOT_FOUND
        return
    option = _SHAPE.get(said) or _CHANGED_LISTS.get(said) or {"extras": "need"}.get(said, said)
    blame(error, f"--{option}")


# ---------------------------------------------------------------------- showing


def _show(session: Session, plan: RemotePlan) -> None:
    counts = plan.get("counts") or {}
    before, after = plan.get("before") or {}, plan.get("after") or {}
    session.console.facts(
        [
            ("verdict", _verdict(plan)),
            ("tasks", ", ".join(f"{count:,} {_word(name)}" for name, count in counts.items() if count)),
            ("devices", _change(*(f"{room.get('devices') or 0:,}" for room in (before, after)))),
            ("cpu free", _change(*(_free(room, "cpu_milli") for room in (before, after)))),
            ("memory free", _change(*(_free(room, "memory_mib") for room in (before, after)))),
            ("reserved", _change(*(_percent(room.get("utilisation")) for room in (before, after)))),
            (
                "room for",
                ", ".join(f"{m.get('copies'):,} more of {m.get('job')}" for m in plan.get("more") or []),
            ),
            *(("note", note) for note in plan.get("notes") or []),
        ]
    )
    broken = [
        [*_places(t)[:3], t.get("reason") or "", t.get("words") or ""] for t in plan.get("broken") or []
    ]
    _table(session, "would find no place:", _BROKEN, broken, counts.get("broken", 0))
    _table(
        session, "would move:", _MOVED, [_places(t) for t in plan.get("moved") or []], counts.get("moved", 0)
    )
    placed = [[t.get("task") or "", t.get("job") or "", t.get("to") or ""] for t in plan.get("placed") or []]
    _table(session, "would be placed:", _PLACED, placed, counts.get("placed", 0))
    _show_survival(session, plan)


def _show_survival(session: Session, plan: RemotePlan) -> None:
    found = plan.get("survival")
    if not found:
        return
    looked = found.get("looked_at") or 0
    _table(session, "if these sites fail:", _LOSSES, [_loss(x) for x in found.get("worst") or []], looked)
    if found.get("left_out"):
        session.console.say(f"{found.get('left_out'):,} sets of the smallest sites were not looked at")


def _verdict(plan: RemotePlan) -> str:
    broken = (plan.get("counts") or {}).get("broken", 0)
    said = []
    if broken:
        reasons = ", ".join(f"{name} {count:,}" for name, count in (plan.get("reasons") or {}).items())
        said.append(f"{broken:,} tasks would find no place ({reasons})")
    survival = plan.get("survival") or {}
    if survival.get("breaking"):
        what = "site" if survival.get("at_once") == 1 else "sets of sites"
        looked = f"{survival.get('breaking'):,} of {survival.get('looked_at'):,}"
        said.append(f"{looked} {what}{'s' if what == 'site' else ''} can't be lost")
    return "; ".join(said) or "nothing breaks"


def _word(name: str) -> str:
    return {"broken": "without a place", "left_out": "waiting, not looked at"}.get(name, name)


def _change(before: str, after: str) -> str:
    return before if before == after else f"{before} -> {after}"


def _free(room: RoomLine, resource: str) -> str:
    show = show_cpu if resource == "cpu_milli" else show_memory
    free, most = (room.get("free") or {}).get(resource), (room.get("largest") or {}).get(resource)
    return "" if free is None else f"{show(free)} ({show(most or 0)} on one device)"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"


def _places(task: PlannedLine) -> list[str]:
    return [task.get("task") or "", task.get("job") or "", task.get("device") or "", task.get("to") or ""]


def _loss(loss: LossLine) -> list[str]:
    sites = ", ".join(site or "(no site)" for site in loss.get("sites") or [])
    numbers = (loss.get("devices"), loss.get("moved"), loss.get("broken"))
    return [sites, *(f"{number or 0:,}" for number in numbers), _percent(loss.get("utilisation"))]


def _table(
    session: Session, title: str, columns: Sequence[Column], rows: Sequence[list[str]], total: float
) -> None:
    """The first rows; the others are in the JSON, or only counted."""
    if not rows:
        return
    session.console.block(f"\n{title}\n")
    session.console.table(columns, rows[:ROWS_SHOWN])
    if total > ROWS_SHOWN:
        session.console.say(f"and {int(total) - min(len(rows), ROWS_SHOWN):,} more: -o json")
