"""Parts of the parser: a word, an option, a value; every verb of `fm` is put together from these.

Rule: a wrong word is a `CommandError`, and a wrong value is found here, before any request.
It knows no verb. Nothing may be abbreviated.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn, TypeAlias

from fleetmuster.exits import CommandError, usage
from fleetmuster.quantities import parse_duration


class CommandParser(argparse.ArgumentParser):
    """Reports a wrong word as a `CommandError` instead of printing the whole usage and exiting."""

    def error(self, message: str) -> NoReturn:
        raise usage(message, f"{self.prog} --help")


if TYPE_CHECKING:  # at run time argparse's class can't be subscripted
    Group: TypeAlias = argparse._SubParsersAction[CommandParser]
    Options: TypeAlias = argparse._ActionsContainer


def listed(run: Options, name: str, kind: Callable[[str], object], metavar: str, text: str) -> None:
    """An option that may be said several times."""
    run.add_argument(name, type=kind, action="append", default=[], metavar=metavar, help=text)


# ---------------------------------------------------------------------- values


def value_of(parse: Callable[[str], object]) -> Callable[[str], object]:
    """`parse` for argparse, which wants its own exception to show the text of an error."""

    def convert(text: str) -> object:
        try:
            return parse(text)
        except CommandError as error:
            raise argparse.ArgumentTypeError(f"{error.what}: {error.next_step}") from error

    return convert


def whole(least: int | None) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not re.fullmatch(r"-?\d{1,12}", text, re.ASCII):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        if least is not None and int(text) < least:
            raise argparse.ArgumentTypeError(f"{text} is less than {least}")
        return int(text)

    return convert


# ---------------------------------------------------------------------- building


def noun(nouns: Group, name: str, text: str, *examples: str) -> Group:
    parser = nouns.add_parser(
        name,
        help=text,
        description=text,
        epilog=examples_of(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    return parser.add_subparsers(dest="verb", metavar="VERB", required=True)


def leaf(group: Group, name: str, text: str, *examples: str, formats: bool = True) -> CommandParser:
    return group.add_parser(
        name,
        help=text,
        description=text,
        epilog=examples_of(*examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        parents=[global_options(leaf=True, formats=formats)],
    )


def json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--json", action="store_const", const="json", dest="output", default=argparse.SUPPRESS,
        help="as -o json",
    )  # fmt: skip


def limit_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=whole(1), metavar="N", help="at most so many")


def several(parser: argparse.ArgumentParser, yes: bool = True) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID")
    if yes:
        parser.add_argument("--yes", action="store_true", help="do not ask")


def examples_of(*lines: str) -> str:
    return "examples:\n" + "\n".join(f"  {line}" for line in lines)


def global_options(leaf: bool, formats: bool = True) -> CommandParser:
    """The global options. In a leaf they have no default, or it would undo one given before the noun."""

    def default(value: object) -> object:
        return argparse.SUPPRESS if leaf else value

    parser = CommandParser(add_help=False, allow_abbrev=False)
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
        type=value_of(parse_duration),
        metavar="TIME",
        default=default(10_000),
        help="for one request (default: 10s)",
    )
    return parser
