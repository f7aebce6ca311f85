"""`fm sim …` and `python -m sim`: reads the words, turns every end into an exit code.

Rule of this file: only argparse is loaded before a command is known, so a base install
without numpy still explains itself. No traceback for what a person can cause. The commands
are in `command/safety.py` and `command/others.py`; what they find is data on stdout, talk is on stderr.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from sim.command.refusals import ExitCode, Refused

MILLION = 1_000_000
_SAFETY = (
    "fm sim safety                                  100 fleets, each with faults of its own",
    "fm sim safety --seed 7 --report out            one of them, with a page to look at",
    "fm sim safety --profile pi-zero-2w --faults broker,machines --minutes 10",
)
_EXITS = "exit codes: 0 all held, 1 violated, 10 did not converge, 11 crashed, 2 wrong usage, 130 Ctrl-C"


class _Wrong(Exception):
    """A word that the parser refuses."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(what)
        self.next_step = next_step


class _Parser(argparse.ArgumentParser):
    """Reports a wrong word in two lines instead of printing the whole usage."""

    def error(self, message: str) -> NoReturn:
        raise _Wrong(message, f"{self.prog} --help")


def main(argv: list[str] | None = None) -> int:
    """Runs one command; `argv` without the program's name. Returns the exit code."""
    try:
        code = _run(sys.argv[1:] if argv is None else argv)
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except _Wrong as wrong:
        return _tell(ExitCode.USAGE, f"fm sim: {wrong}", f"  next: {wrong.next_step}")
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EIO):
            _silence_stdout()
            return _tell(ExitCode.CRASHED, f"fm sim: the output can't be written: {error.strerror}")
        # Python's own code for this is 1, which says that a promise was broken.
        return _tell(ExitCode.CRASHED, traceback.format_exc().rstrip(), "fm sim: that is a bug in fm sim")


def _run(words: list[str]) -> int:
    options = _parser().parse_args(words)
    try:
        return int(_command(options.command)(options))
    except Refused as refused:
        return _tell(refused.code, *refused.lines)
    except ModuleNotFoundError as error:
        return _missing(error)


def _command(name: str) -> Callable[[argparse.Namespace], int]:
    if name == "safety":
        from sim.command.safety import safety

        return safety
    from sim.command.others import COMMANDS

    return COMMANDS[name]


def _missing(error: ModuleNotFoundError) -> int:
    """The base install has no numpy; a module of ours that is missing is a bug."""
    if (error.name or "").split(".")[0] in ("sim", "controller", "protocol", "broker", "edge_agent"):
        raise error
    return _tell(
        ExitCode.USAGE,
        "fm sim: it needs more than the base install",
        f"  why:  Python module {error.name!r} is not there",
        "  next: pip install 'fleetmuster[sim]'",
    )


# ------------------------------------------------------------- the words


def _parser() -> argparse.ArgumentParser:
    top = _Parser(
        prog="fm sim",
        description="The real controller and agents on a simulated network, in virtual time.",
        epilog=_examples("fm sim safety", "fm sim scenarios", "fm sim scale --devices 5000 --hours 24"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_safety(_leaf(commands, "safety", "do the promises hold, whatever breaks?", *_SAFETY, end=_EXITS))
    _leaf(commands, "scenarios", "the built-in scenarios", "fm sim scenarios", "fm sim scenarios --json"
          ).add_argument("--json", action="store_true", help="as one JSON array")  # fmt: skip
    check = _leaf(
        commands,
        "check",
        "the same checkers on a history recorded from real processes",
        "fm sim check history.jsonl",
        "fm sim check history.jsonl --json",
        end=_EXITS,
    )
    check.add_argument("history", type=Path, metavar="HISTORY", help="one JSON object per line")
    check.add_argument("--json", action="store_true", help="one JSON object")
    scale = _leaf(
        commands,
        "scale",
        "a large idle fleet for hours, without faults: how fast?",
        "fm sim scale --devices 5000 --hours 24",
        "fm sim scale --devices 500 --hours 1 --json",
    )
    scale.add_argument("--devices", type=_whole(1, 100_000), default=5_000, metavar="N", help="default: 5000")
    scale.add_argument("--hours", type=_number(0.01, 1_000), default=24.0, metavar="H", help="default: 24")
    scale.add_argument("--seed", type=_whole(0, 2**53), default=0, metavar="S", help="default: 0")
    scale.add_argument("--json", action="store_true", help="one JSON object")
    scale.add_argument("-q", "--quiet", action="store_true", help="no progress")
    return top


def _add_safety(parser: argparse.ArgumentParser) -> None:
    """Defaults are filled in later: a scenario must be able to tell what was said."""
    what = parser.add_argument_group("what is played")
    what.add_argument("--seeds", type=_whole(1, MILLION), metavar="N", help="how many seeds (100)")
    what.add_argument("--from", type=_whole(0, 2**53), dest="first", metavar="S", help="the first seed (0)")
    what.add_argument("--seed", type=_whole(0, 2**53), metavar="S", help="this one; tells all that it draws")
    what.add_argument("--scenario", metavar="FILE|NAME", help="a scenario file, or a built-in scenario")
    what.add_argument(
        "--minutes", type=_number(0.1, 1_440), metavar="M", help="virtual minutes of faults per seed (5)"
    )
    what.add_argument("--devices", type=_whole(1, 1_000), metavar="D", help="devices per fleet (20)")
    what.add_argument(
        "--profile", action="append", default=[], metavar="NAME", help="only this device class; repeatable"
    )
    what.add_argument("--faults", metavar="FAMILY,…", help="exactly these, or none (each seed draws)")
    how = parser.add_argument_group("how")
    how.add_argument("--jobs", type=_whole(1, 256), metavar="N", help="processes (one per core)")
    how.add_argument("--stop-after", type=_whole(1, MILLION), metavar="K", help="end after K failed seeds")
    how.add_argument("--report", type=Path, metavar="DIR", help="report.html and .json (on failure: fm-sim)")
    how.add_argument("--no-shrink", action="store_true", help="don't make the first failure smaller")
    how.add_argument("--json", action="store_true", help="one JSON object on stdout")
    how.add_argument("-q", "--quiet", action="store_true", help="no progress, no advice")


def _leaf(group: argparse._SubParsersAction[_Parser], name: str, text: str, *examples: str, end: str = ""
          ) -> argparse.ArgumentParser:  # fmt: skip
    return group.add_parser(
        name,
        help=text,
        description=text,
        epilog=_examples(*examples) + (f"\n\n{end}" if end else ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _examples(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def _whole(least: int, most: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"\d{1,19}", text, re.ASCII) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {least} to {most}")
        return int(text)

    return convert


def _number(least: float, most: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        plain = re.fullmatch(r"\d{1,9}(\.\d{1,6})?", text, re.ASCII)
        if not plain or not least <= float(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is no number from {least:g} to {most:g}")
        return float(text)

    return convert


# ------------------------------------------------------------- ends


def _tell(code: ExitCode, *lines: str) -> ExitCode:
    if sys.stderr is not None:
        try:
            sys.stderr.write("".join(f"{line}\n" for line in lines))
            sys.stderr.flush()
        except OSError:
            return code  # nobody listens; the exit code still tells
    return code


def _silence_stdout() -> None:
    """Points stdout at nothing, so that the interpreter's flush at exit has no one to fail on."""
    try:
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, sys.stdout.fileno())
        os.close(nothing)
    except (OSError, ValueError):
        return  # not a real file (a test's capture): it has no flush that could fail
