"""Broker link: the connection to the broker, and the canary that tells whether it carries both ways.

A link that is up may still be dead in one direction, and a broker may lose what others say
without a word. So the core sends itself a message through the broker; while one is missing,
silence of devices says nothing and no failover begins (C4).
Refuses to know: devices, and what a failover does with being deaf.
"""

from __future__ import annotations

import random

from controller.core.effects import PublishFleet
from controller.core.events import CanaryReturned
from controller.core.failover import Failover
from controller.core.ledger import Ledger
from controller.core.liveness import Liveness
from protocol.backoff import CONTROLLER_RECONNECT_MS
from protocol.core import Connect, LinkDown, LinkUp
from protocol.messages import Canary, ControllerStatus

CANARY_MS = 5_000


class BrokerLink:
    """One leadership's connections, one after the other."""

    def __init__(
        self, ledger: Ledger, liveness: Liveness, failover: Failover, rng: random.Random, now_ms: int
    ) -> None:
        self.ledger = ledger
        self.liveness = liveness
        self.failover = failover
        self.rng = rng
        self.session = 0
        self.up = False
        self.canary = self.canary_back = 0
        ledger.deadlines.set("link", 0, now_ms)
        ledger.deadlines.set("canary", 0, now_ms + CANARY_MS)

    def connect(self) -> None:
        self.session += 1
        self.ledger.emit(Connect(self.session, self._status(False)))

    def _status(self, online: bool) -> ControllerStatus:
        return ControllerStatus(online, self.ledger.leader, self.ledger.epoch)

    def on_up(self, event: LinkUp, now_ms: int) -> None:
        if event.session != self.session:
            return
        self.up = True
        self.liveness.watch(now_ms)
        self.canary_back = self.canary
        self.ledger.deadlines.set("canary", 0, now_ms)
        self.ledger.emit(PublishFleet(self._status(True)))

    def on_down(self, event: LinkDown, now_ms: int) -> None:
        if event.session != self.session:
            return
        self.up = False
        self.liveness.look_away()
        self.ledger.note("warning", "connection to the broker lost", reason=event.reason)
        self.ledger.deadlines.set("link", 0, now_ms + self.rng.randrange(100, CONTROLLER_RECONNECT_MS))

    def send_canary(self, now_ms: int) -> None:
        """The last one must be back before the next is sent; else we are deaf and move nothing."""
        self.ledger.deadlines.set("canary", 0, now_ms + CANARY_MS)
        if not self.up:
            return
        if self.canary_back != self.canary:
            self.failover.deaf = True
            self.ledger.alarm("canary", "the broker does not return the controller's own messages")
        self.canary += 1
        self.ledger.emit(PublishFleet(Canary(self.ledger.epoch, self.canary)))

    def on_canary(self, event: CanaryReturned, now_ms: int) -> None:
        if (event.epoch, event.number) == (self.ledger.epoch, self.canary):
            self.canary_back = event.number
            self.failover.hear_again(now_ms)
            self.ledger.calm("canary")
