"""`fm`: reads the words, hands them to one command, turns every end into an exit code.

Rule: imports are paid by whoever needs them. Only argparse is loaded before the command
is known; `up`, `controller` and `sim` get their words unread, since they bring parsers and
dependencies of their own. No traceback for what a person can cause; a traceback is a
bug. A reader that closes our stdout early has simply had enough: quiet, exit 0.
It knows no routes and no tables.
"""

from __future__ import annotations

import errno
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

from fleetmuster.console import Console, tell_error
from fleetmuster.exits import CommandError, Exit, usage

if TYPE_CHECKING:
    from fleetmuster.session import Session

_WITH_COMMAND = (("job", "run"), ("plan", "submit"))
_DELEGATED = {"up": "fleetmuster.up", "controller": "controller.cli", "sim": "sim.cli"}
_OURS = ("fleetmuster", "controller", "protocol", "live", "broker", "edge_agent", "firmware_profiles", "sim")


def main(argv: list[str] | None = None) -> int:
    """Runs one command; `argv` without the program's name. Returns the exit code, never raises for
    what a person, the network or the controller did."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        _tolerant_streams()
        code = _run(words)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except CommandError as error:
        tell_error(error)
        return int(error.code)
    except KeyboardInterrupt:
        return int(Exit.INTERRUPTED)
    except BrokenPipeError:
        _silence_stdout()
        return int(Exit.OK)
    except SystemExit as stop:  # argparse after --help and --version
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EIO, errno.EBADF):
            raise
        _silence_stdout()
        tell_error(CommandError(Exit.FAILED, f"the output can't be written: {error.strerror}"))
        return int(Exit.FAILED)


def _run(words: list[str]) -> int:
    if words and words[0] in _DELEGATED:
        return _delegate(words[0], words[1:])
    from fleetmuster.parser import build

    head, tail = _divided(words)
    options = build().parse_args(head or ["--help"])
    if options.noun in _DELEGATED:
        raise usage(f"{options.noun} must be the first word", f"fm {options.noun} --help")
    options.command = tail
    if tail is not None and (options.noun, getattr(options, "verb", "")) not in _WITH_COMMAND:
        raise usage("only fm job run and fm plan submit take a command after --")
    if options.noun == "help":
        return _help(options.topic)
    return _command(options)


def _command(options: Namespace) -> int:
    from fleetmuster.session import Session

    console = Console(getattr(options, "output", "table"), options.quiet, options.verbose, options.no_input)
    session = Session(options, console)
    try:
        return int(_NOUNS[options.noun](session, options))
    except CommandError as error:
        session.advise(error)
        raise
    finally:
        session.close()


def _job(session: Session, options: Namespace) -> Exit:
    from fleetmuster.commands import job

    return job.VERBS[options.verb](session, options)


def _task(session: Session, options: Namespace) -> Exit:
    from fleetmuster.commands import task

    return task.VERBS[options.verb](session, options)


def _device(session: Session, options: Namespace) -> Exit:
    from fleetmuster.commands import device

    return device.VERBS[options.verb](session, options)


def _fleet(session: Session, options: Namespace) -> Exit:
    from fleetmuster.commands import fleet

    return fleet.VERBS[options.verb or "overview"](session, options)


def _plan(session: Session, options: Namespace) -> Exit:
    from fleetmuster.commands import plan

    return plan.VERBS[options.verb](session, options)


def _rebalance(session: Session, options: Namespace) -> Exit:
    from fleetmuster.commands import rebalance

    return rebalance.VERBS[options.verb](session, options)


def _context(session: Session, options: Namespace) -> Exit:
    from fleetmuster.commands import context

    return context.VERBS[options.verb](session, options)


_NOUNS = {
    "job": _job,
    "task": _task,
    "device": _device,
    "fleet": _fleet,
    "plan": _plan,
    "rebalance": _rebalance,
    "context": _context,
}


def _help(topic: list[str]) -> int:
    from fleetmuster.help_pages import PAGES, names

    page = PAGES.get(" ".join(topic))
    if page is None and topic:
        try:
            return _run([*topic, "--help"])
        except CommandError as error:
            raise usage(f"no help on {' '.join(topic)!r}", f"topics: {names()}; or a command") from error
    Console().block(page() if page else f"topics: {names()}; or a command, as in: fm help job run\n")
    return int(Exit.OK)


def _delegate(name: str, words: list[str]) -> int:
    """Runs a command of another package, or says which extra it needs."""
    try:
        run: Callable[[list[str]], int] = import_module(_DELEGATED[name]).main
        return run(words)
    except ModuleNotFoundError as error:
        missing = error.name or str(error)
        if missing.split(".")[0] in _OURS and missing != _DELEGATED[name]:
            raise  # a bug, not a missing extra
        raise CommandError(
            Exit.FAILED,
            f"fm {name} needs more than the base install",
            f"Python module {missing!r} is not there",
            "pip install 'fleetmuster[all]'",
        ) from error


def _divided(words: list[str]) -> tuple[list[str], list[str] | None]:
    """What stands before the first `--` and what after; `None` without one."""
    if "--" not in words:
        return words, None
    at = words.index("--")
    return words[:at], words[at + 1 :]


def _tolerant_streams() -> None:
    """A character that the terminal's encoding lacks is shown escaped, never an exception."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """Points stdout at nothing, so that the interpreter's flush at exit has no one to fail on."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError):
        return  # not a real file (a test's capture): it has no flush that could fail
