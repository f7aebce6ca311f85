"""Wording: what pydantic finds wrong, in words that say what to write instead.

Rule: one table of kinds; a kind that is not in it keeps pydantic's own words. Nothing that
was sent is repeated beyond a short quotation. Used for bodies and for query parameters,
which differ only in where the place is named.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping

from pydantic_core import ErrorDetails

QUOTED_CHARS_MAX = 40
WRITTEN_OUT_MAX = 1e15
"""A larger float is not the number that was meant."""
_BOUNDS = {
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
}
"""pydantic's name of a bound, our words for it, and where it tells the number."""


def worded(item: ErrorDetails | Mapping[str, object]) -> str:
    """The fault as a sentence without its place."""
    kind, context = str(item["type"]), item.get("ctx") or {}
    assert isinstance(context, Mapping)
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {context.get(key, 0):,}"
    words = _WORDS.get(kind)
    if words is None:
        return str(item["msg"]).removeprefix("Value error, ")
    return words(item.get("input"), context)


def suggestion(given: str, known: list[str]) -> str:
    """What was probably meant, to stand at the end of a sentence."""
    near = difflib.get_close_matches(given, known, 1)
    return f"; did you mean '{near[0]}'?" if near else ""


# ------------------------------------------------------------------------- by kind

_Words = Callable[[object, Mapping[str, object]], str]


def _whole(given: object, context: Mapping[str, object]) -> str:
    if isinstance(given, str) and given.strip().lstrip("+-").isdecimal() and len(given) <= QUOTED_CHARS_MAX:
        return f"must be a whole number: {int(given)}, without quotes"
    if isinstance(given, float) and given.is_integer() and abs(given) < WRITTEN_OUT_MAX:
        return f"must be a whole number: {int(given)}, without fraction or exponent"
    return f"must be a whole number, not {_quoted(given)}"


def _text(given: object, context: Mapping[str, object]) -> str:
    if isinstance(given, int | float) and not isinstance(given, bool):
        return f'must be text: "{_quoted(given)}", with quotes'
    return f"must be text, not {_quoted(given)}"


def _flag(given: object, context: Mapping[str, object]) -> str:
    return f"must be true or false, not {_quoted(given)}"


def _list(given: object, context: Mapping[str, object]) -> str:
    return f"must be a list: [ … ], not {_quoted(given)}"


def _object(given: object, context: Mapping[str, object]) -> str:
    return f"must be an object: {{ … }}, not {_quoted(given)}"


def _choice(given: object, context: Mapping[str, object]) -> str:
    expected = str(context.get("expected", ""))
    known = expected.replace("'", "").replace(" or ", ", ").split(", ")
    near = suggestion(given[:60], known) if isinstance(given, str) else ""
    return f"must be {expected}{near}"


def _too_many(given: object, context: Mapping[str, object]) -> str:
    actual, most = context.get("actual_length"), context.get("max_length", 0)
    told = f", not {actual:,}" if isinstance(actual, int) else ""
    return f"must have at most {most:,} entries{told}"


def _too_few(given: object, context: Mapping[str, object]) -> str:
    return f"must have at least {context.get('min_length', 0):,}"


def _too_long(given: object, context: Mapping[str, object]) -> str:
    told = f", not {len(given):,}" if isinstance(given, str) else ""
    return f"must have at most {context.get('max_length', 0):,} characters{told}"


def _pattern(given: object, context: Mapping[str, object]) -> str:
    return f"must match {context.get('pattern', '')}"


def _required(given: object, context: Mapping[str, object]) -> str:
    return "is required"


def _quoted(given: object) -> str:
    """As JSON has it, or only its kind where that is long."""
    if isinstance(given, list | tuple | dict | set):
        return "an object" if isinstance(given, dict) else "a list"
    if given is None:
        return "null; leave it out for what is usual"
    try:
        told = json.dumps(given)
    except (TypeError, ValueError):
        return "that"
    return told if len(told) <= QUOTED_CHARS_MAX else f"{told[:QUOTED_CHARS_MAX]}…"


_WORDS: dict[str, _Words] = {
    **dict.fromkeys(("int_type", "int_from_float", "int_parsing", "int_parsing_size"), _whole),
    "string_type": _text,
    **dict.fromkeys(("bool_type", "bool_parsing"), _flag),
    **dict.fromkeys(("tuple_type", "list_type"), _list),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _object),
    **dict.fromkeys(("literal_error", "enum"), _choice),
    "too_long": _too_many,
    "too_short": _too_few,
    "string_too_long": _too_long,
    "string_pattern_mismatch": _pattern,
    "missing": _required,
}
