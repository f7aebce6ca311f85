"""What the model of a broker is told and what it asks for: its events, effects, options.

An event is an MQTT packet that came in on a numbered connection, or the loss of one. The
world draws a fresh connection number for each connection; numbers never recur, so that
a late event of a connection that was taken over can't be mistaken for its successor's.
Refused: packets as bytes (a simulator has none), QoS 2 (the fleet's protocol has none).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from protocol.core import Effect, Event
from protocol.limits import PAYLOAD_BYTES_MAX


class AclAction(StrEnum):
    """What a client wants to do with a topic or, for `SUBSCRIBE`, with a filter."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"


AclHook = Callable[[str, str, AclAction, str], bool]
"""(client id, user name, action, topic or filter) -> allowed. Must be pure."""


@dataclass(slots=True)
class Publication:
    """A message as it was published. `retain` is the flag of the publisher."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False


# ------------------------------------------------------------------------ events


@dataclass(slots=True)
class ConnectReceived(Event):
    """CONNECT (3.1). `keep_alive_ms` 0 means none; `will` is published when the link fails."""

    connection: int
    client: str
    username: str = ""
    clean_session: bool = True
    keep_alive_ms: int = 0
    will: Publication | None = None


@dataclass(slots=True)
class DisconnectReceived(Event):
    """DISCONNECT (3.14): the orderly end, which discards the will."""

    connection: int


@dataclass(slots=True)
class ConnectionLost(Event):
    """The socket closed without DISCONNECT."""

    connection: int


@dataclass(slots=True)
class PublishReceived(Event):
    """PUBLISH (3.3). `packet_id` is 0 for QoS 0."""

    connection: int
    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    packet_id: int = 0


@dataclass(slots=True)
class SubscribeReceived(Event):
    """SUBSCRIBE (3.8): pairs of filter and wanted QoS."""

    connection: int
    filters: tuple[tuple[str, int], ...]
    packet_id: int = 0


@dataclass(slots=True)
class UnsubscribeReceived(Event):
    """UNSUBSCRIBE (3.10)."""

    connection: int
    filters: tuple[str, ...]
    packet_id: int = 0


@dataclass(slots=True)
class PubackReceived(Event):
    """PUBACK (3.4) for a `SendPublish` of QoS 1."""

    connection: int
    packet_id: int


@dataclass(slots=True)
class PingReceived(Event):
    """PINGREQ (3.12)."""

    connection: int


@dataclass(slots=True)
class PublicationRelayed(Event):
    """Another node of the broker passes on what it took from `client` a while ago. No connection
    is needed any more; access is that of the client."""

    client: str
    username: str
    publication: Publication


# ----------------------------------------------------------------------- effects


class ConnackCode(IntEnum):
    """Return codes of CONNACK that the model uses (3.2.2.3)."""

    ACCEPTED = 0
    IDENTIFIER_REJECTED = 2
    SERVER_UNAVAILABLE = 3


SUBSCRIBE_FAILED = 0x80


@dataclass(slots=True)
class SendConnack(Effect):
    """`client` is the identifier in force: the broker's own where the client sent none."""

    connection: int
    client: str
    code: ConnackCode
    session_present: bool = False


@dataclass(slots=True)
class SendSuback(Effect):
    """One code for each filter: the granted QoS or `SUBSCRIBE_FAILED`."""

    connection: int
    packet_id: int
    codes: tuple[int, ...]


@dataclass(slots=True)
class SendUnsuback(Effect):
    """The answer to every UNSUBSCRIBE, also where nothing was subscribed."""

    connection: int
    packet_id: int


@dataclass(slots=True)
class SendPublish(Effect):
    """Deliver a message to a client. `packet_id` is 0 for QoS 0."""

    connection: int
    client: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int


@dataclass(slots=True)
class SendPuback(Effect):
    """The broker has taken a QoS 1 message; the last thing it says about it."""

    connection: int
    packet_id: int


@dataclass(slots=True)
class SendPingresp(Effect):
    """The answer to a PINGREQ."""

    connection: int


@dataclass(slots=True)
class CloseConnection(Effect):
    """Close the socket. The world need not answer; a `ConnectionLost` that follows is stale."""

    connection: int
    client: str
    reason: str


# ----------------------------------------------------------------------- options


@dataclass(slots=True, frozen=True)
class BrokerLimits:
    """What one client may cost. The defaults are those of the configuration we render."""

    payload_bytes_max: int = PAYLOAD_BYTES_MAX
    """A larger payload is acknowledged and dropped, as mosquitto's `message_size_limit` does."""
    packet_bytes_max: int = PAYLOAD_BYTES_MAX + 1_024
    """Topic + payload; more is a protocol error that costs the connection."""
    inflight_max: int = 10_000
    """QoS 1 messages sent and not acknowledged, per client; must stay below 65,535 ids."""
    queued_max: int = 200_000
    """QoS 1 messages waiting behind them; the newest is dropped when full."""
    queued_bytes_max: int = 268_435_456
    subscriptions_max: int = 1_000
    """Per client; more are answered with `SUBSCRIBE_FAILED`."""
    sessions_max: int = 200_000
    """Clients, connected or kept; a further one is told that the server is unavailable."""
    retained_max: int = 2_000_000


@dataclass(slots=True, frozen=True)
class BrokerQuirks:
    """How real brokers misbehave; all off is MQTT 3.1.1. May be exchanged between events."""

    no_retained_for_wildcards: bool = False
    """RabbitMQ 3.10: a wildcard subscription brings no retained message."""
    redeliver_live_ms: int = 0
    """NATS: an unacknowledged message comes again on a live connection after so long. 0: never."""
    will_late_ms: int = 0
    """A will is published so much later than it should be."""
    silence_unnoticed: bool = False
    """amqtt: a device that falls silent keeps its connection, and no will is sent."""
    copies_for_overlaps: bool = False
    """One copy for each matching subscription, which 3.3.5 allows."""


class Survival(StrEnum):
    """What a restart leaves of retained messages and kept sessions."""

    KEPT = "kept"
    ROLLED_BACK = "rolled_back"
    """What the last `snapshot` saw; nothing, if there was none."""
    LOST = "lost"


@dataclass(slots=True)
class BrokerCounts:
    """Since the model was made; restarts don't reset them."""

    published: int = 0
    delivered: int = 0
    redelivered: int = 0
    wills: int = 0
    denied: int = 0
    oversize: int = 0
    queue_full: int = 0
    retained_full: int = 0
    stale: int = 0
    """Events of a connection that the broker had already given up."""
