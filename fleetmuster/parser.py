"""The words of `fm`: every noun, verb and option, with examples, as one argparse tree.

Rule: global options are accepted before the noun and after the verb alike; nothing may
be abbreviated (a script that says `--time` would break with the next option). Values
are turned into the API's units here, so a wrong one is a usage error before any request.
It imports no command. Rejected: click, typer (third-party in the base install, and slow
to start).
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from fleetmuster import __version__
from fleetmuster.exits import CommandError, usage
from fleetmuster.quantities import parse_cpu, parse_duration, parse_memory

TASK_STATES = ("pending", "assigned", "running", "succeeded", "failed", "cancelled")
DELEGATED = {
    "up": "run a whole fleet on this machine: broker, controller, agents",
    "controller": "run a controller",
    "sim": "the real controller and agents, simulated: do the promises hold, whatever breaks?",
}
_ATTRIBUTE = r"\s*([A-Za-z0-9_][A-Za-z0-9_.:/-]*)"
_COMPARED = re.compile(_ATTRIBUTE + r"\s*(!=|>=|<=|==|=|>|<)\s*(.*)")
_LISTED = re.compile(_ATTRIBUTE + r"\s+(in|not_in)\s+(.+)")
_EXISTING = re.compile(_ATTRIBUTE + r"\s+(exists)\s*()")


class _Parser(argparse.ArgumentParser):
    """Reports a wrong word as a `CommandError` instead of printing the whole usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise usage(message, f"{self.prog} --help")


if TYPE_CHECKING:  # at run time argparse's class can't be subscripted
    Group: TypeAlias = argparse._SubParsersAction[_Parser]


def build() -> argparse.ArgumentParser:
    """The whole tree. Parsed names: `noun`, `verb` and the options of that verb."""
    top = _Parser(
        prog="fm",
        description="Fleetmuster: place work on a fleet of small computers over MQTT.",
        epilog=_examples(
            "fm up                                   a demo fleet on this machine",
            "fm job run --cpu 0.5 --wait -- uptime   a job on the device with most fitting room",
            "fm help exit-codes                      what a script can rely on",
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[_globals(leaf=False)],
    )
    top.add_argument("--version", action="version", version=f"fm {__version__}")
    nouns = top.add_subparsers(dest="noun", metavar="COMMAND", required=True)
    for name, text in DELEGATED.items():
        nouns.add_parser(name, help=text, add_help=False)
    _add_job(nouns)
    _add_task(nouns)
    _add_device(nouns)
    _add_fleet(nouns)
    _add_context(nouns)
    page = _leaf(
        nouns, "help", "a page on a topic, or the help of a command", "fm help exit-codes", "fm help job run"
    )
    page.add_argument("topic", nargs="*")
    return top


def _add_job(nouns: Group) -> None:
    verbs = _noun(nouns, "job", "declare work and follow it", "fm job run -- uptime", "fm job list")
    _add_job_run(verbs)
    listing = _leaf(verbs, "list", "all jobs", "fm job list", "fm job list -o json --limit 20")
    _limit(listing)
    show = _leaf(verbs, "show", "one job", "fm job show j-1", "fm job show j-1 -o json")
    show.add_argument("id", metavar="ID")
    cancel = _leaf(verbs, "cancel", "stop jobs", "fm job cancel j-1", "fm job cancel j-1 j-2 --yes")
    _several(cancel)
    wait = _leaf(
        verbs,
        "wait",
        "until a batch job has ended, or a service runs in full (0 succeeded, 1 failed, 7 too late)",
        "fm job wait j-1",
        "fm job wait j-1 --timeout 5m && echo done",
    )
    wait.add_argument("id", metavar="ID")
    wait.add_argument(
        "--timeout", type=_value(parse_duration), metavar="TIME", help="give up after this long"
    )


def _add_job_run(verbs: Group) -> None:
    run = _leaf(
        verbs,
        "run",
        "declare a job: fm job run [options] -- CMD ARG...",
        "fm job run -- python3 -c 'print(1)'",
        "fm job run --count 3 --cpu 0.5 --memory 64MiB --wait -- ./measure --fast",
        "fm job run --kind service --constraint label.zone=a --guarantee at_least_one -- ./serve",
    )
    run.add_argument("--name", help="default: after the command")
    run.add_argument("--kind", choices=("batch", "service"), default="batch", help="default: batch")
    run.add_argument("--count", type=_whole(1), default=1, metavar="N", help="tasks (default: 1)")
    run.add_argument("--cpu", type=_value(parse_cpu), metavar="CORES", help="each task's share: 0.5 or 500m")
    run.add_argument("--memory", type=_value(parse_memory), metavar="SIZE", help="64MiB, 1GiB; bare: MiB")
    run.add_argument("--disk", type=_value(parse_memory), metavar="SIZE", help="as --memory")
    run.add_argument("--gpu", type=_value(parse_cpu), metavar="GPUS", help="as --cpu")
    run.add_argument("--env", type=_value(parse_env), action="append", default=[], metavar="K=V")
    run.add_argument(
        "--constraint",
        type=_value(parse_constraint),
        action="append",
        default=[],
        metavar="'A=V'",
        help="device must have it; also != < <= > >= in not_in exists",
    )
    run.add_argument(
        "--timeout", type=_value(parse_duration), metavar="TIME", help="a run may take this long"
    )
    run.add_argument(
        "--ttl", type=_value(parse_duration), metavar="TIME", help="from creation; then it failed"
    )
    run.add_argument("--lease", type=_value(parse_duration), metavar="TIME", help="running on without news")
    run.add_argument(
        "--stop-grace", type=_value(parse_duration), metavar="TIME", help="between TERM and KILL"
    )
    run.add_argument(
        "--max-attempts", type=_whole(0), metavar="N", help="own failures allowed (0: unlimited)"
    )
    run.add_argument("--priority", type=_whole(None), metavar="N")
    run.add_argument("--guarantee", choices=("at_most_one", "at_least_one"))
    run.add_argument("--runtime", choices=("process", "simulated"), default="process")
    run.add_argument("--idempotency-key", metavar="KEY", help="saying it again submits no second job")
    run.add_argument("--wait", action="store_true", help="as fm job wait: 0 succeeded, 1 failed, 7 too late")
    run.add_argument("--wait-timeout", type=_value(parse_duration), metavar="TIME", help="only with --wait")
    run.add_argument("stray", nargs="*", help=argparse.SUPPRESS)


def _add_task(nouns: Group) -> None:
    verbs = _noun(nouns, "task", "look at single tasks", "fm task list --state running", "fm task output t-1")
    listing = _leaf(
        verbs, "list", "tasks", "fm task list --job j-1", "fm task list --device pi-7 --state running"
    )
    listing.add_argument("--job", default="", metavar="ID")
    listing.add_argument("--device", default="", metavar="ID")
    listing.add_argument("--state", default="", choices=TASK_STATES)
    _limit(listing)
    show = _leaf(verbs, "show", "one task and its story", "fm task show t-1", "fm task show t-1 -o json")
    show.add_argument("id", metavar="ID")
    output = _leaf(
        verbs,
        "output",
        "what it wrote",
        "fm task output t-1",
        "fm task output t-1 --stream stderr --attempt 1",
        "fm task output t-1 --follow",
    )
    output.add_argument("id", metavar="ID")
    output.add_argument("--stream", choices=("stdout", "stderr"), default="stdout")
    output.add_argument("--attempt", type=_whole(1), metavar="N", help="default: the latest")
    output.add_argument("--follow", action="store_true", help="until the attempt has ended")
    explain = _leaf(
        verbs, "explain", "why it is there, or nowhere", "fm task explain t-1", "fm task explain t-1 -o json"
    )
    explain.add_argument("id", metavar="ID")


def _add_device(nouns: Group) -> None:
    verbs = _noun(nouns, "device", "the machines of the fleet", "fm device list", "fm device drain pi-7")
    listing = _leaf(verbs, "list", "all devices", "fm device list", "fm device list -o json")
    _limit(listing)
    show = _leaf(verbs, "show", "one device", "fm device show pi-7", "fm device show pi-7 -o json")
    show.add_argument("id", metavar="ID")
    add = _leaf(
        verbs,
        "add",
        "let a device join; its configuration is shown only now",
        "fm device add pi-7 -o agent.toml",
        "fm device add pi-7 | ssh pi-7 'umask 077; cat > agent.toml'",
        formats=False,
    )
    add.add_argument("id", metavar="ID")
    add.add_argument("-o", "--out-file", metavar="FILE", help="write it there (0600) instead of stdout")
    remove = _leaf(
        verbs,
        "remove",
        "take credential and state away",
        "fm device remove pi-7",
        "fm device remove pi-7 --yes",
    )
    _several(remove)
    texts = {
        "cordon": "no new tasks",
        "uncordon": "new tasks again",
        "drain": "no new tasks, and move those it has",
    }
    for verb, text in texts.items():
        _several(_leaf(verbs, verb, text, f"fm device {verb} pi-7", f"fm device {verb} pi-7 pi-8"), yes=False)
    ping = _leaf(verbs, "ping", "round trip by MQTT", "fm device ping pi-7", "fm device ping pi-7 -o json")
    ping.add_argument("id", metavar="ID")


def _add_fleet(nouns: Group) -> None:
    fleet = _leaf(
        nouns, "fleet", "the whole fleet on one screen", "fm fleet", "fm fleet -o json", "fm fleet unfreeze"
    )
    verbs = fleet.add_subparsers(dest="verb", metavar="VERB")
    _leaf(
        verbs, "unfreeze", "end a freeze of failover", "fm fleet unfreeze", "fm fleet unfreeze --context lab"
    )


def _add_context(nouns: Group) -> None:
    verbs = _noun(
        nouns, "context", "which controllers this user knows", "fm context list", "fm context use demo"
    )
    _leaf(verbs, "list", "all contexts", "fm context list", "fm context list -o json")
    use = _leaf(verbs, "use", "make one the current", "fm context use demo", "fm context use lab && fm fleet")
    use.add_argument("name", metavar="NAME")
    show = _leaf(verbs, "show", "one context", "fm context show", "fm context show demo --show-token")
    show.add_argument("name", metavar="NAME", nargs="?")
    show.add_argument("--show-token", action="store_true", help="the secret, too")
    remove = _leaf(
        verbs,
        "remove",
        "forget one; the controller is not touched",
        "fm context remove demo",
        "fm context remove lab -q",
    )
    remove.add_argument("name", metavar="NAME")


# ---------------------------------------------------------------------- values


def parse_env(text: str) -> tuple[str, str]:
    """`K=V` to a pair. Raises `CommandError`."""
    name, equals, value = text.partition("=")
    if not equals or not name or "\0" in value:
        raise usage(f"{text!r} is no environment variable", "write NAME=VALUE")
    return name, value


def parse_constraint(text: str) -> tuple[str, str, str]:
    """`label.zone=a`, `site in a,b` or `label.gpu exists` to (attribute, operator, value).

    Raises `CommandError`.
    """
    match = _COMPARED.fullmatch(text) or _LISTED.fullmatch(text) or _EXISTING.fullmatch(text)
    if match is None:
        raise usage(
            f"{text!r} is no constraint",
            "write 'label.zone=a'; also != < <= > >=, 'site in a,b', 'label.x exists'",
        )
    operator = "=" if match[2] == "==" else match[2]
    return match[1], operator, match[3].strip()


def _value(parse: Callable[[str], object]) -> Callable[[str], object]:
    """`parse` for argparse, which wants its own exception to show the text of an error."""

    def convert(text: str) -> object:
        try:
            return parse(text)
        except CommandError as error:
            raise argparse.ArgumentTypeError(f"{error.what}: {error.next_step}") from error

    return convert


def _whole(least: int | None) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,12}", text, re.ASCII):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        if least is not None and int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return convert


# ---------------------------------------------------------------------- building


def _noun(nouns: Group, name: str, text: str, *examples: str) -> Group:
    parser = nouns.add_parser(
        name,
        help=text,
        description=text,
        epilog=_examples(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser.add_subparsers(dest="verb", metavar="VERB", required=True)


def _leaf(group: Group, name: str, text: str, *examples: str, formats: bool = True) -> _Parser:
    return group.add_parser(
        name,
        help=text,
        description=text,
        epilog=_examples(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[_globals(leaf=True, formats=formats)],
    )


def _limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=_whole(1), metavar="N", help="at most so many")


def _several(parser: argparse.ArgumentParser, yes: bool = True) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID")
    if yes:
        parser.add_argument("--yes", action="store_true", help="do not ask")


def _examples(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def _globals(leaf: bool, formats: bool = True) -> _Parser:
    """The global options. In a leaf they have no default, or it would undo one given before the noun."""

    def default(value: object) -> object:
        return argparse.SUPPRESS if leaf else value

    parser = _Parser(add_help=False, allow_abbrev=False)
    group = parser.add_argument_group("global options")
    group.add_argument("--context", metavar="NAME", default=default(None), help="instead of the current one")
    group.add_argument("--url", default=default(None), help="the controller (FM_URL)")
    group.add_argument(
        "--token-file", metavar="FILE", default=default(None), help="its token (or FM_TOKEN; never in argv)"
    )
    if formats:
        group.add_argument(
            "-o", "--output", choices=("table", "json"), default=default("table"), help="default: table"
        )
    group.add_argument(
        "-q", "--quiet", action="store_true", default=default(False), help="errors only on stderr"
    )
    group.add_argument("-v", "--verbose", action="store_true", default=default(False), help="show requests")
    group.add_argument("--no-input", action="store_true", default=default(False), help="never ask")
    group.add_argument(
        "--request-timeout",
        type=_value(parse_duration),
        metavar="TIME",
        default=default(10_000),
        help="for one request (default: 10s)",
    )
    return parser
