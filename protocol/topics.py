"""The topic tree, once: build, parse and filter, each other's inverse.

`fm/1/<fleet>/<device>/<channel>`, always five levels, so that single-level wildcards
always work. Ids that begin with `_` are the fleet's own (`_controller`).
Rejected: free depth (a filter per kind of message would not exist); the device id in
the payload (the broker's ACL guards topics, not payloads).
"""

from __future__ import annotations

import re
from typing import NamedTuple

from protocol.errors import GarbageReason, RemoteGarbage
from protocol.limits import PROTOCOL_VERSION, TOPIC_BYTES_MAX

ROOT = f"fm/{PROTOCOL_VERSION}"
UP = ("status", "heartbeat", "runs", "inventory", "telemetry", "output", "answer")
"""Channels that a device writes."""
DOWN = ("assignments", "lease", "settings", "command")
"""Channels that a device reads."""
CONTROLLER = "_controller"
CONTROLLER_CHANNELS = ("status", "canary")

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z")
_CHANNELS = frozenset(UP + DOWN)


class Topic(NamedTuple):
    """A parsed topic: `device` may be `_controller`."""

    fleet: str
    device: str
    channel: str


def valid_id(text: str) -> bool:
    """Whether `text` may name a fleet or a device: `[A-Za-z0-9][A-Za-z0-9-]{0,63}`."""
    return _ID.match(text) is not None


def build(fleet: str, device: str, channel: str) -> str:
    """The topic string of one channel of one device."""
    return f"{ROOT}/{fleet}/{device}/{channel}"


def parse(topic: str) -> Topic:
    """The inverse of `build`. Raises `RemoteGarbage` for what `build` could not have made."""
    parts = topic.split("/")
    if len(topic) > TOPIC_BYTES_MAX or len(parts) != 5 or f"{parts[0]}/{parts[1]}" != ROOT:
        raise RemoteGarbage(GarbageReason.UNKNOWN_TOPIC, topic[:80])
    fleet, device, channel = parts[2:]
    allowed = CONTROLLER_CHANNELS if device == CONTROLLER else _CHANNELS
    if not valid_id(fleet) or channel not in allowed or not (device == CONTROLLER or valid_id(device)):
        raise RemoteGarbage(GarbageReason.UNKNOWN_TOPIC, topic[:80])
    return Topic(fleet, device, channel)


def up_filters(fleet: str) -> tuple[str, ...]:
    """What a controller subscribes: one filter per up channel, so it does not hear itself."""
    return tuple(build(fleet, "+", channel) for channel in UP)


def down_filters(fleet: str, device: str) -> tuple[str, ...]:
    """What a device subscribes: its own down channels, literally."""
    return tuple(build(fleet, device, channel) for channel in DOWN)


def retained_topics(fleet: str, device: str) -> tuple[str, ...]:
    """Every topic of a device that may hold a retained message, for its removal."""
    return tuple(build(fleet, device, c) for c in ("status", "runs", "inventory", "assignments", "settings"))
