"""`fm rebalance`: plans of voluntary moves, to be read before they are approved.

A plan levels the fleet or, with `--task`, makes room for a task that fits nowhere.
Rule: it shows what it costs and what it gains, the fleet before and after, and in the
end what to type next. Drains are in the same list; they are ended by `fm device uncordon`.
"""

from __future__ import annotations

from argparse import Namespace

from fleetmuster.commands.job_request import blame
from fleetmuster.exits import Exit
from fleetmuster.moments import age
from fleetmuster.rebalance_records import (
    BalanceLine,
    RebalanceRequest,
    RemoteRebalance,
    RemoteRebalances,
    VoluntaryMoveLine,
)
from fleetmuster.records import Number
from fleetmuster.session import Session
from fleetmuster.tables import Column
from fleetmuster.wire import ApiError

NAMES_SHOWN = 10
_PLANS = (
    Column("ID", fixed=True),
    Column("KIND"),
    Column("STATE"),
    Column("MOVES", right=True),
    Column("MOVED", right=True),
    Column("BUSIEST BEFORE", right=True),
    Column("AFTER", right=True),
    Column("BY"),
    Column("WHY"),
)
_MOVES = (
    Column("TASK", fixed=True),
    Column("FROM"),
    Column("LOAD", right=True),
    Column("TO"),
    Column("LOAD", right=True),
    Column("COST", right=True),
    Column("GAIN", right=True),
    Column("STATE"),
    Column("WHY"),
)
_BALANCE = (
    Column(""),
    Column("IMBALANCE", right=True),
    Column("MEAN LOAD", right=True),
    Column("BUSIEST", right=True),
    Column("BUSIEST/MEAN", right=True),
    Column("RESPONSE", right=True),
)


def plan(session: Session, options: Namespace) -> Exit:
    request = RebalanceRequest()
    if options.dry_run:
        request["dry_run"] = True
    if options.approve:
        request["approve"] = True
    if options.max_moves is not None:
        request["moves_max"] = options.max_moves
    if options.task is not None:
        request["task"] = options.task
    try:
        made = session.client.ask_rebalance(request)
    except ApiError as error:
        if error.pointer == "/moves_max":
            blame(error, "--max-moves")
        elif error.pointer == "/task":
            blame(error, "--task")
        raise
    _show(session, made)
    if not made.get("moves"):
        session.console.say(made.get("reason") or "nothing to do: no move would make the fleet more even")
    elif not options.dry_run and made.get("state") == "proposed":
        session.console.say(f"it waits for approval: fm rebalance approve {made['id']}")
    return Exit.OK


def list_(session: Session, options: Namespace) -> Exit:
    found = session.client.rebalances()
    if session.console.json_wanted:
        session.console.json(found)
        return Exit.OK
    session.console.table(_PLANS, [_plan_row(each) for each in found["items"]])
    session.console.say(_now(found))
    return Exit.OK


def show(session: Session, options: Namespace) -> Exit:
    _show(session, session.client.rebalance(options.id))
    return Exit.OK


def approve(session: Session, options: Namespace) -> Exit:
    session.client.approve_rebalance(options.id)
    session.console.say(f"{options.id} approved: its tasks move as they can")
    return Exit.OK


def reject(session: Session, options: Namespace) -> Exit:
    session.client.reject_rebalance(options.id)
    session.console.say(f"{options.id} rejected; moves that had begun go on")
    return Exit.OK


VERBS = {"plan": plan, "list": list_, "show": show, "approve": approve, "reject": reject}


def _show(session: Session, found: RemoteRebalance) -> None:
    console = session.console
    if console.json_wanted:
        console.json(found)
        return
    reason = found.get("reason") or ""
    console.facts(
        [
            ("plan", found["id"]),
            ("kind", _kind(found)),
            ("for", found.get("task") or ""),
            ("state", (found.get("state") or "") + (f": {reason}" if reason else "")),
            ("made", _made(found)),
            ("decided by", found.get("decided_by") or ""),
            ("moves", _counts(found)),
            ("no home", _names(found.get("homeless"))),
            ("stay", _names(found.get("staying"))),
        ]
    )
    console.block("\n")
    rows = [("before", found.get("before")), ("after", found.get("after"))]
    console.table(_BALANCE, [_balance_row(name, line) for name, line in rows if line])
    if moves := found.get("moves"):
        console.block("\n")
        console.table(_MOVES, [_move_row(move) for move in moves])


def _kind(found: RemoteRebalance) -> str:
    """With the device that is drained, or that room is made on."""
    return f"{found.get('kind') or ''} {found.get('device') or ''}".strip()


def _made(found: RemoteRebalance) -> str:
    created = found.get("created")
    ago = age(created) if created is not None else ""
    by = f"by {found['actor']}" if found.get("actor") else ""
    return " ".join(part for part in (by, f"{ago} ago" if ago else "") if part)


def _counts(found: RemoteRebalance) -> str:
    counts = found.get("counts") or {}
    told = [f"{count:,} {name}" for name, count in counts.items() if count]
    return ", ".join(told) or "none"


def _names(tasks: list[str] | None) -> str:
    """The first few; scripts take the JSON."""
    tasks = tasks or []
    more = f" and {len(tasks) - NAMES_SHOWN:,} more" if len(tasks) > NAMES_SHOWN else ""
    return ", ".join(tasks[:NAMES_SHOWN]) + more


def _plan_row(found: RemoteRebalance) -> list[str]:
    counts = found.get("counts") or {}
    before, after = found.get("before") or {}, found.get("after") or {}
    return [
        found["id"],
        _kind(found),
        found.get("state") or "",
        f"{sum(counts.values()):,}",
        f"{counts.get('moved', 0):,}",
        _percent(before.get("most_load")),
        _percent(after.get("most_load")),
        found.get("decided_by") or found.get("actor") or "",
        found.get("reason") or "",
    ]


def _move_row(move: VoluntaryMoveLine) -> list[str]:
    landed, target = move.get("landed") or "", move.get("target") or ""
    elsewhere = f"went to {landed}" if landed and landed != target else ""
    return [
        move.get("task") or "",
        move.get("source") or "",
        _percent(move.get("source_load")),
        target,
        _percent(move.get("target_load")),
        _figure(move.get("cost"), 1),
        _figure(move.get("gain"), 4),
        move.get("state") or "",
        move.get("reason") or elsewhere,
    ]


def _balance_row(name: str, line: BalanceLine) -> list[str]:
    return [
        name,
        _figure(line.get("imbalance"), 3),
        _percent(line.get("mean_load")),
        _percent(line.get("most_load")),
        _figure(line.get("ratio"), 2),
        _figure(line.get("response"), 2),
    ]


def _now(found: RemoteRebalances) -> str:
    now = found.get("now") or {}
    told = f"now: busiest device {_percent(now.get('most_load'))}, mean {_percent(now.get('mean_load'))}"
    mode = {"off": "nobody looks by itself", "propose": "proposals wait for approval"}
    mode["auto"] = "small plans run by themselves"
    parts = [told, mode.get(found.get("mode") or "", "")]
    parts += [f"nothing begins: {found['waits']}"] if found.get("waits") else []
    return "; ".join(part for part in parts if part)


def _percent(load: Number | None) -> str:
    return "" if load is None else f"{load * 100:.0f}%"


def _figure(value: Number | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
