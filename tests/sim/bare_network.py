"""A network of plain clients around a broker, without any core: what its tests speak with."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.acl import FleetAcl
from broker.events import Publication
from broker.model import BrokerModel
from protocol import topics
from sim.clockwork import Clockwork
from sim.network import Network

FLEET = "sim"
CONTROLLER = "_controller-c1"


def topic(device: str, channel: str) -> str:
    return topics.build(FLEET, device, channel)


@dataclass
class End:
    """A client that only listens, and says when it was spoken to."""

    net: Net
    client: str
    place: str = ""
    heard: list[tuple[str, bytes]] = field(default_factory=list)
    news: list[str] = field(default_factory=list)
    connection: int = 0

    def connect(self, *filters: str, will: Publication | None = None) -> End:
        wanted = tuple((f, 1) for f in filters or topics.down_filters(FLEET, self.client))
        self.connection = self.net.network.connect(self.client, self, wanted, will, self.place)
        return self

    def say(self, channel: str, payload: bytes = b"x", qos: int = 1, retain: bool = False) -> None:
        self.tell(topic(self.client, channel), payload, qos, retain)

    def tell(self, to: str, payload: bytes = b"x", qos: int = 1, retain: bool = False) -> None:
        self.net.network.publish(self.connection, to, payload, qos, retain)

    def payloads(self) -> list[bytes]:
        return [payload for _, payload in self.heard]

    def on_link_up(self, connection: int) -> None:
        self.news.append("up")

    def on_link_down(self, connection: int, reason: str) -> None:
        self.news.append(reason)

    def on_publication(self, connection: int, topic: str, payload: bytes, retain: bool) -> None:
        self.heard.append((topic, payload))


class Net:
    """A network with a controller that hears everything and any number of devices."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = Clockwork(seed)
        self.broker = BrokerModel(acl=FleetAcl(FLEET))
        self.network = Network(self.clock, self.broker)
        self.controller = self.end(CONTROLLER).connect(*topics.up_filters(FLEET))
        self.pass_ms(100)

    def end(self, client: str, place: str = "") -> End:
        return End(self, client, place)

    def device(self, client: str = "d0", place: str = "", will: Publication | None = None) -> End:
        found = self.end(client, place).connect(will=will)
        self.pass_ms(100)
        return found

    def pass_ms(self, ms: int) -> None:
        until_ms = self.clock.now_ms + ms
        while self.clock.step(until_ms):
            pass
