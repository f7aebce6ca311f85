"""An onlooker at the broker: hears every message of a fleet and when it passed.

Rule of this file: it only listens, in a thread with an event loop of its own, on a broker
that lets it (`private_mosquitto`). Times are this machine's wall clock in nanoseconds, so
that they can be compared with stamps that tasks write.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from live.link import LinkHandlers, LinkOptions
from live.links import make_link
from protocol import topics
from protocol.codec import decode
from protocol.errors import RemoteGarbage
from protocol.messages import NO_REVISION, Heartbeat, LeaseAnswer, Status


@dataclass(slots=True)
class Heard:
    """One message."""

    at_ns: int
    device: str
    message: object
    payload_bytes: int


class Watch:
    """What was heard so far, oldest first. Read it from any thread."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.up = threading.Event()

    def note(self, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        at_ns = time.time_ns()
        try:
            parsed = topics.parse(topic)
            self.heard.append(Heard(at_ns, parsed.device, decode(parsed, payload), len(payload)))
        except RemoteGarbage:
            return

    def beats(self, device: str) -> list[Heard]:
        return [h for h in list(self.heard) if h.device == device and isinstance(h.message, Heartbeat)]

    def session_of(self, device: str) -> int:
        """Of the device's last birth; 0 before there was one."""
        for heard in reversed(list(self.heard)):
            if heard.device == device and isinstance(heard.message, Status) and heard.message.online:
                return heard.message.session
        return 0

    def will_ns(self, device: str) -> int:
        """When the device was last said to be gone; 0 if it never was."""
        gone = [
            h.at_ns
            for h in list(self.heard)
            if h.device == device and isinstance(h.message, Status) and not h.message.online
        ]
        return gone[-1] if gone else 0

    def last_granted_ns(self, device: str) -> int:
        """When the device's last heartbeat passed that was answered by a grant; 0 if none was."""
        granted = {
            (h.message.session, h.message.seq)
            for h in list(self.heard)
            if h.device == device and isinstance(h.message, LeaseAnswer) and h.message.granted != NO_REVISION
        }
        for heard in reversed(self.beats(device)):
            beat = heard.message
            assert isinstance(beat, Heartbeat)
            if (beat.session, beat.seq) in granted:
                return heard.at_ns
        return 0


@contextmanager
def watching(port: int) -> Iterator[Watch]:
    """Listens to all devices on the broker at `port`."""
    watch, loop = Watch(), asyncio.new_event_loop()

    async def listen() -> None:
        filters = tuple((f"fm/1/+/+/{channel}", 0) for channel in ("heartbeat", "lease", "status"))
        options = LinkOptions("127.0.0.1", port, "onlooker", subscriptions=filters)
        link = make_link(options, LinkHandlers(watch.up.set, lambda reason: None, watch.note))
        link.open()
        while not stop.is_set():
            await asyncio.sleep(0.05)
        link.close(True)
        await asyncio.sleep(0.05)

    stop = threading.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(listen()))
    thread.start()
    try:
        if not watch.up.wait(10):
            raise SystemExit("the onlooker can't connect to the broker")
        yield watch
    finally:
        stop.set()
        thread.join(5)
        loop.close()
