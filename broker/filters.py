"""Topic filters: validity, matching and covering, as MQTT 3.1.1 section 4.7 says.

Rule of this file: plain strings in, a truth value out; nothing is stored. The index
that answers for many filters at once is `broker.subscriptions`, and is tested against
`matches`.
Rejected: regular expressions made from filters (escaping, and a cache to bound).
"""

from __future__ import annotations

TOPIC_BYTES_CEILING = 65_535
"""MQTT strings carry a 16-bit length (1.5.3)."""


def _valid_string(text: str) -> bool:
    if not text or "\0" in text:
        return False
    if text.isascii():
        return len(text) <= TOPIC_BYTES_CEILING
    try:
        return len(text.encode()) <= TOPIC_BYTES_CEILING
    except UnicodeEncodeError:  # a lone surrogate is not UTF-8 (1.5.3-1)
        return False


def valid_topic(topic: str) -> bool:
    """Whether one may publish to it: not empty, no wildcard, no NUL, at most 65,535 bytes."""
    return "+" not in topic and "#" not in topic and _valid_string(topic)


def valid_filter(topic_filter: str) -> bool:
    """Whether one may subscribe to it: wildcards fill a level, `#` only the last (4.7.1)."""
    if not _valid_string(topic_filter):
        return False
    if not is_wild(topic_filter):
        return True
    levels = topic_filter.split("/")
    if any("#" in level for level in levels[:-1]):
        return False
    return all(level in ("+", "#") or not is_wild(level) for level in levels)


def is_wild(topic_filter: str) -> bool:
    """Whether the filter has a wildcard, that is, can match more than one topic."""
    return "+" in topic_filter or "#" in topic_filter


def matches(topic_filter: str, topic: str) -> bool:
    """Whether a valid filter matches a valid topic.

    `a/#` matches `a` too (4.7.1.2); a leading wildcard never matches `$...` (4.7.2-1).
    """
    if topic[:1] == "$" and topic_filter[:1] in ("+", "#"):
        return False
    levels = topic.split("/")
    wanted = topic_filter.split("/")
    if wanted[-1] == "#":
        wanted.pop()
        if len(levels) < len(wanted):
            return False
    elif len(levels) != len(wanted):
        return False
    return all(want in ("+", level) for want, level in zip(wanted, levels, strict=False))


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic that filter `narrow` matches is matched by filter `wide` too.

    This is how a subscription is held against an access rule: granting `fm/+/x` under the
    rule `fm/a/x` would be a leak. A topic covers itself. `a/+` and `a/#` don't cover `a/#`
    and `+/#`; where `$` topics make two filters equal in a corner, the answer is no.
    """
    if narrow[:1] == "$" and wide[:1] in ("+", "#"):
        return False
    outer, inner = wide.split("/"), narrow.split("/")
    if outer[-1] == "#":
        outer.pop()
        rest = len(inner) - 1 if inner[-1] == "#" else len(inner)
        if rest < len(outer):
            return False
    elif inner[-1] == "#" or len(inner) != len(outer):
        return False
    return all(want in ("+", level) for want, level in zip(outer, inner, strict=False))
