"""A bench for the model, shared by its tests as a fixture (test folders are no packages)."""

from __future__ import annotations

import pytest

from broker import events as ev
from broker.model import BrokerModel
from protocol.core import Effect, TimerElapsed


class Bench:
    """Two lines for what a test would say in ten: feeds events, sorts effects."""

    def __init__(self, **options: object) -> None:
        self.model = BrokerModel(**options)  # type: ignore[arg-type]
        self.now_ms = 0
        self.last: list[Effect] = []

    def feed(self, event: ev.Event) -> list[Effect]:
        self.last = self.model.handle(event, self.now_ms)
        return self.last

    def connect(self, number: int, client: str = "", **options: object) -> list[Effect]:
        return self.feed(ev.ConnectReceived(number, client or f"c{number}", **options))  # type: ignore[arg-type]

    def subscribe(self, number: int, topic_filter: str, qos: int = 1) -> list[Effect]:
        return self.feed(ev.SubscribeReceived(number, ((topic_filter, qos),), 7))

    def publish(
        self, number: int, topic: str, payload: bytes = b"p", qos: int = 0, retain: bool = False
    ) -> list[Effect]:
        return self.feed(ev.PublishReceived(number, topic, payload, qos, retain, 9 if qos else 0))

    def to(self, now_ms: int) -> list[Effect]:
        self.now_ms = now_ms
        return self.feed(TimerElapsed())

    def sent(self) -> list[ev.SendPublish]:
        return [effect for effect in self.last if isinstance(effect, ev.SendPublish)]

    def closed(self) -> list[int]:
        return [effect.connection for effect in self.last if isinstance(effect, ev.CloseConnection)]


@pytest.fixture
def make() -> type[Bench]:
    """Makes a bench: `make(limits=..., quirks=..., acl=...)`."""
    return Bench
