"""`fm task`: single tasks, their stories, their output, and why they are where they are.

Rule: output goes to stdout byte for byte. It is always read from one attempt, chosen
before the first byte: a retry in the middle would splice two runs at one offset.
"""

from __future__ import annotations

from argparse import Namespace

from fleetmuster.client import OutputPart
from fleetmuster.exits import Exit
from fleetmuster.moments import age, stamp
from fleetmuster.patience import Patience
from fleetmuster.records import RemoteExplanation, RemoteTask
from fleetmuster.session import Session
from fleetmuster.tables import Column

FINAL = ("succeeded", "failed", "cancelled")
SCORES_SHOWN = 10
_COLUMNS = (
    Column("ID", fixed=True),
    Column("JOB"),
    Column("STATE"),
    Column("DEVICE"),
    Column("ATTEMPT", right=True),
    Column("EXIT", right=True),
    Column("CHANGED", right=True),
    Column("REASON"),
)
_ATTEMPTS = (
    Column("ATTEMPT", right=True),
    Column("DEVICE"),
    Column("STATE"),
    Column("EXIT", right=True),
    Column("CREATED"),
    Column("ENDED"),
    Column("REASON"),
)
_STORY = (
    Column("AT"),
    Column("WHAT"),
    Column("FROM"),
    Column("TO"),
    Column("DEVICE"),
    Column("ATTEMPT", right=True),
    Column("BY"),
    Column("REASON"),
)


def list_(session: Session, options: Namespace) -> Exit:
    tasks = list(session.client.tasks(options.job, options.device, options.state, options.limit))
    if session.console.json_wanted:
        session.console.json(tasks)
        return Exit.OK
    if not tasks:
        _check_names(session, options)
        session.console.say("no such task")
    session.console.table(_COLUMNS, [_row(task) for task in tasks])
    return Exit.OK


def _check_names(session: Session, options: Namespace) -> None:
    """An empty list may be a mistaken id, as the name of a job. Raises `ApiError`: there is none."""
    if options.job:
        session.client.job(options.job)
    if options.device:
        session.client.device(options.device)


def show(session: Session, options: Namespace) -> Exit:
    task = session.client.task(options.id)
    console = session.console
    if console.json_wanted:
        console.json(task)
        return Exit.OK
    console.facts(
        [
            ("id", task["id"]),
            ("job", task.get("job") or ""),
            ("state", _state(task)),
            ("device", task.get("device") or ""),
            ("attempt", _number(task.get("attempt"))),
            ("exit", _number(task.get("exit_code"))),
            ("reason", task.get("reason") or ""),
            ("created", stamp(task.get("created"))),
            ("changed", stamp(task.get("changed"))),
        ]
    )
    _show_attempts(session, task)
    _show_story(session, task)
    return Exit.OK


def output(session: Session, options: Namespace) -> Exit:
    """Until the end of what there is; with --follow until the attempt has ended."""
    patience = Patience(session.console, None)
    attempt = options.attempt or _latest_attempt(session, patience, options.id, options.follow)
    if attempt is None:
        session.console.say(f"{options.id} has no attempt yet; why: fm task explain {options.id}")
        return Exit.OK
    offset = 0

    def read() -> OutputPart:
        return session.client.output(options.id, options.stream, attempt, offset)

    while True:
        part = patience.ask(read)
        missing = part.next_offset - offset - len(part.data)
        if missing > 0:
            session.console.say(f"({missing} bytes are missing here)")
        session.console.raw(part.data)
        if part.next_offset > offset:
            offset = part.next_offset
            patience.news()
        elif part.complete or not options.follow:
            return Exit.OK
        else:
            patience.pause()


def explain(session: Session, options: Namespace) -> Exit:
    found = session.client.explain(options.id)
    console = session.console
    if console.json_wanted:
        console.json(found)
        return Exit.OK
    console.facts(
        [
            ("task", found.get("task") or options.id),
            ("state", found.get("state") or ""),
            ("device", found.get("device") or ""),
            ("summary", found.get("summary") or ""),
            ("reason", found.get("reason") or ""),
            ("policy", found.get("policy") or ""),
        ]
    )
    _show_remedies(session, found)
    _show_filters(session, found)
    _show_chosen(session, found)
    _show_scores(session, found)
    return Exit.OK


VERBS = {"list": list_, "show": show, "output": output, "explain": explain}


def _latest_attempt(session: Session, patience: Patience, task_id: str, follow: bool) -> int | None:
    """The present attempt's number; with `follow`, waits for the first one. `None`: there is none."""
    while True:
        task = patience.ask(lambda: session.client.task(task_id))
        attempt = task.get("attempt")
        if attempt:
            return attempt
        if not follow or task.get("state") in FINAL:
            return None
        patience.pause()


def _show_attempts(session: Session, task: RemoteTask) -> None:
    attempts = task.get("attempts") or []
    if attempts:
        rows = [
            [
                _number(each.get("attempt")),
                each.get("device") or "",
                each.get("state") or "",
                _number(each.get("exit_code")),
                stamp(each.get("created")),
                stamp(each.get("ended")),
                each.get("reason") or "",
            ]
            for each in attempts
        ]
        session.console.block("\n")
        session.console.table(_ATTEMPTS, rows)


def _show_story(session: Session, task: RemoteTask) -> None:
    story = task.get("story") or []
    if story:
        rows = [
            [
                stamp(line.get("at")),
                line.get("what") or "",
                line.get("from") or "",
                line.get("to") or "",
                line.get("device") or "",
                _number(line.get("attempt")),
                line.get("actor") or "",
                line.get("reason") or "",
            ]
            for line in story
        ]
        session.console.block("\n")
        session.console.table(_STORY, rows)


def _show_remedies(session: Session, found: RemoteExplanation) -> None:
    """Each of them alone would place it; cheapest first."""
    remedies = found.get("remedies") or []
    if remedies:
        rows = [[r.get("words") or r.get("kind") or "", _number(r.get("devices"))] for r in remedies]
        session.console.block("\n")
        session.console.table(
            (Column("ANY ONE OF THESE WOULD PLACE IT"), Column("DEVICES", right=True)), rows
        )


def _show_filters(session: Session, found: RemoteExplanation) -> None:
    filters = found.get("filters") or []
    if filters:
        rows = [[f.get("filter") or "", _number(f.get("removed")), f.get("reason") or ""] for f in filters]
        columns = (Column("FILTER"), Column("REMOVED", right=True), Column("REASON"))
        shown = 3 if any(row[2] for row in rows) else 2
        session.console.block("\n")
        session.console.table(columns[:shown], [row[:shown] for row in rows])


def _show_chosen(session: Session, found: RemoteExplanation) -> None:
    chosen = found.get("chosen") or []
    if chosen:
        rows = [[c.get("device") or "", f"{c.get('score') or 0:.3f}"] for c in chosen]
        session.console.block("\n")
        session.console.table((Column("WHEN IT WAS PLACED", fixed=True), Column("SCORE", right=True)), rows)


def _show_scores(session: Session, found: RemoteExplanation) -> None:
    scores = found.get("scores") or []
    if scores:
        rows = [
            [
                score.get("device") or "",
                f"{score.get('score') or 0:.3f}",
                ", ".join(f"{name} {part:.3f}" for name, part in (score.get("parts") or {}).items()),
            ]
            for score in scores[:SCORES_SHOWN]
        ]
        session.console.block("\n")
        session.console.table(
            (Column("DEVICE", fixed=True), Column("SCORE", right=True), Column("PARTS")), rows
        )
        if len(scores) > SCORES_SHOWN:
            session.console.say(f"and {len(scores) - SCORES_SHOWN} more: -o json")


def _row(task: RemoteTask) -> list[str]:
    return [
        task["id"],
        task.get("job") or "",
        _state(task),
        task.get("device") or "",
        _number(task.get("attempt")),
        _number(task.get("exit_code")),
        age(task.get("changed") or task.get("created")),
        task.get("reason") or "",
    ]


def _state(task: RemoteTask) -> str:
    """The state, and `-> cancelled` while that is wished but not yet true."""
    state = task.get("state") or ""
    return f"{state} -> cancelled" if task.get("desired") == "cancelled" and state not in FINAL else state


def _number(value: float | None) -> str:
    return "" if value is None else str(value)
