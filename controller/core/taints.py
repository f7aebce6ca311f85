"""Taints: marks on devices that keep tasks away, and tolerations that overlook them.

A taint is `key=value:effect` or `key:effect`, set by operators. The effects: `no_place`
lets nothing new in, `prefer_not` makes the device worse, `evict` lets nothing in and
sends away what is there. A toleration is `key=value:effect`, `key=value`, `key:effect` or
`key` (what it leaves out, it overlooks in any form), or `*` for everything.
It knows no devices and no tasks.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import NamedTuple

NO_PLACE, PREFER_NOT, EVICT = "no_place", "prefer_not", "evict"
EFFECTS = (NO_PLACE, PREFER_NOT, EVICT)
ALL = "*"
WORD_CHARS_MAX = 63
_WORD = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._/-]{{0,{WORD_CHARS_MAX - 1}}}")
_OTHER_WORDS = {"noschedule": NO_PLACE, "prefernoschedule": PREFER_NOT, "noexecute": EVICT}
"""What the same is called elsewhere."""


class TaintFault(ValueError):
    """No taint, or no toleration; the message says why and what would be one."""


class Taint(NamedTuple):
    """A mark; its value may be empty."""

    key: str
    value: str
    effect: str


class Toleration(NamedTuple):
    """What is overlooked; None stands for any."""

    key: str | None
    value: str | None
    effect: str | None

    def covers(self, taint: Taint) -> bool:
        """Whether this taint is overlooked."""
        return all(mine is None or mine == its for mine, its in zip(self, taint, strict=True))


class Bearing(NamedTuple):
    """What a device's taints mean for a task, after its tolerations.

    `allowed`: it may be placed there; `penalty`: 0 nothing speaks against it, then 1/2,
    3/4, … with each `prefer_not`; `evicts`: it has to leave.
    """

    allowed: bool
    penalty: float
    evicts: bool


def tolerated(taints: Iterable[str], tolerations: Iterable[str]) -> Bearing:
    """Weighs taints against tolerations. Raises `TaintFault` on what the checks below refuse."""
    overlooked = [read_toleration(text) for text in tolerations]
    left = [t for t in map(read_taint, taints) if not any(o.covers(t) for o in overlooked)]
    hard = any(t.effect != PREFER_NOT for t in left)
    soft = sum(t.effect == PREFER_NOT for t in left)
    return Bearing(not hard, 1.0 - 0.5**soft, any(t.effect == EVICT for t in left))


def read_taint(text: str) -> Taint:
    """`key=value:effect` or `key:effect`; raises `TaintFault`."""
    mark, colon, effect = text.partition(":")
    if not colon:
        raise TaintFault(f"'{text[:80]}' has no effect; write {text[:80] or 'key'}:{NO_PLACE}")
    key, value = _key_and_value(mark)
    return Taint(key, value or "", _effect(effect))


def read_toleration(text: str) -> Toleration:
    """One of the forms above; raises `TaintFault`."""
    mark, colon, effect = text.partition(":")
    said = _effect(effect) if colon else None
    if mark == ALL:
        return Toleration(None, None, said)
    if not mark:
        raise TaintFault(f"a key is missing; write key{text[:80]}, or {ALL}{text[:80]} for every key")
    return Toleration(*_key_and_value(mark), said)


def check_taint(text: str) -> str:
    """What is wrong with a taint, in a sentence; empty when it is fine."""
    try:
        read_taint(text)
    except TaintFault as fault:
        return str(fault)
    return ""


def check_toleration(text: str) -> str:
    """What is wrong with a toleration, in a sentence; empty when it is fine."""
    try:
        read_toleration(text)
    except TaintFault as fault:
        return str(fault)
    return ""


def _key_and_value(mark: str) -> tuple[str, str | None]:
    key, equals, value = mark.partition("=")
    for what, word in (("key", key), ("value", value if equals else "x")):
        if _WORD.fullmatch(word) is None:
            raise TaintFault(
                f"'{word[:80]}' is no {what}: 1 to {WORD_CHARS_MAX} letters, digits, '.', '_', '/' or '-', "
                "the first a letter or digit"
            )
    return key, value if equals else None


def _effect(word: str) -> str:
    if word in EFFECTS:
        return word
    plain = word.strip().lower().replace("-", "_")
    near = difflib.get_close_matches(plain, EFFECTS, 1)
    meant = _OTHER_WORDS.get(plain.replace("_", "")) or (near[0] if near else "")
    told = f"did you mean '{meant}'?" if meant else f"there are {', '.join(EFFECTS)}"
    raise TaintFault(f"'{word[:40]}' is not an effect; {told}")
