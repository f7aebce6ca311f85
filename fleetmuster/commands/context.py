"""`fm context`: which controllers this user knows, and which one is meant by default.

Rule: it reads and writes the context file only and asks no controller. A token is shown
only by `--show-token`: a screen is often shared.
"""

from __future__ import annotations

from argparse import Namespace

from fleetmuster import contexts
from fleetmuster.exits import CommandError, Exit
from fleetmuster.session import Session
from fleetmuster.tables import Column


def list_(session: Session, options: Namespace) -> Exit:
    known = contexts.load_all()
    saved = [known.contexts[name] for name in sorted(known.contexts)]
    if session.console.json_wanted:
        session.console.json([_shown(each, known.current, False) for each in saved])
        return Exit.OK
    columns = (Column("CURRENT"), Column("NAME", fixed=True), Column("URL"), Column("DATA"))
    rows = [["*" if each.name == known.current else "", each.name, each.url, each.data] for each in saved]
    session.console.table(columns, rows)
    if not saved:
        session.console.say("no context yet; fm up registers one")
    return Exit.OK


def use(session: Session, options: Namespace) -> Exit:
    contexts.use(options.name)
    session.console.say(f"current context: {options.name}")
    return Exit.OK


def show(session: Session, options: Namespace) -> Exit:
    saved = contexts.load(options.name or options.context)
    shown = _shown(saved, contexts.load_all().current, options.show_token)
    if session.console.json_wanted:
        session.console.json(shown)
    else:
        session.console.facts([(name, _text(value)) for name, value in shown.items()])
    return Exit.OK


def remove(session: Session, options: Namespace) -> Exit:
    if not contexts.forget(options.name):
        raise CommandError(Exit.NOT_FOUND, f"no context {options.name!r}", next_step="fm context list")
    session.console.say(f"context {options.name} forgotten; the controller was not touched")
    return Exit.OK


VERBS = {"list": list_, "use": use, "show": show, "remove": remove}


def _shown(saved: contexts.SavedContext, current: str, token: bool) -> dict[str, str | int | bool | None]:
    shown: dict[str, str | int | bool | None] = {
        "name": saved.name,
        "current": saved.name == current,
        "url": saved.url,
        "data": saved.data,
        "pid": saved.pid,
    }
    return {**shown, "token": saved.token} if token else shown


def _text(value: str | int | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
