"""Errors by blame: remote garbage, local mistake, refusal.

Garbage is what a peer sent: counted by reason, reported, dropped. A local mistake is a
bug of ours: nobody catches it. A refusal is a legal "no" with a reason code: a value, and
so not in here (`controller.core.views.RefusalView`).
"""

from __future__ import annotations

from enum import StrEnum


class GarbageReason(StrEnum):
    """Why a message was dropped. The names are metric labels: never renamed."""

    UNKNOWN_TOPIC = "unknown_topic"
    WRONG_CHANNEL = "wrong_channel"
    OVERSIZE = "oversize"
    EMPTY = "empty"
    MALFORMED = "malformed"
    NOT_A_MAP = "not_a_map"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"


class RemoteGarbage(ValueError):
    """A peer's message that breaks the protocol. `reason` is counted, `detail` is for people."""

    def __init__(self, reason: GarbageReason, detail: str = "") -> None:
        super().__init__(f"{reason.value}: {detail}" if detail else reason.value)
        self.reason = reason
        self.detail = detail


class LocalMistake(AssertionError):
    """Our own bug, found at run time. The process stops and its supervisor restarts it."""
