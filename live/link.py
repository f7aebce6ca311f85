"""The contract of one MQTT connection: options, handlers, link.

Rules of every link, held by one contract suite:
- MQTT 3.1.1, clean session, QoS 0 and 1. One object is one connection attempt; to try
  again, make another. Reconnecting is the core's decision, so it isn't here.
- `open` answers at once. Then comes `on_up` (CONNACK *and* every SUBACK accepted) and later
  one `on_down`, or only `on_down`. After `on_down` nothing is called any more.
- No handler is called from within `open`, `publish`, `close` or `resume_reading`.
- What the peer sends never becomes an exception: unreadable bytes end the connection with
  a reason. What a handler raises is a bug of ours: it ends the connection and goes to the
  event loop's exception handler.
- Everything is bounded: time to connect, silence, queue, packet size.

It knows nothing of our topics or messages: those are `protocol`'s. Rejected: coroutines
(`await link.publish()`): a core's effects are performed in order, without waiting.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

CONNECT_TIMEOUT_MS = 5_000
"""Name look-up, TCP, TLS, CONNACK and SUBACK together; a 3G round trip is under 1 s."""
KEEPALIVE_S = 10
INFLIGHT_MAX = 100
"""QoS 1 messages without PUBACK: at 100 ms round trip still 1,000 messages a second."""
QUEUE_MAX = 1_000
"""Messages that wait for the window or for the socket. Callers hear `False` beyond it."""


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Paths of PEM files. Empty `ca_file`: the system's authorities; empty `cert_file`: no client cert."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


@dataclass(frozen=True, slots=True)
class WillMessage:
    """What the broker publishes for us if the connection ends without good order."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = True


@dataclass(frozen=True, slots=True)
class LinkOptions:
    """Everything one connection needs. `subscriptions` are (filter, QoS 0 or 1) pairs.

    A peer that says nothing for 1.5 to 2 x `keepalive_s` is given up; 0 turns both pings and that off.
    """

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = None
    keepalive_s: int = KEEPALIVE_S
    will: WillMessage | None = None
    subscriptions: tuple[tuple[str, int], ...] = ()
    tls: TlsSettings | None = None
    inflight_max: int = INFLIGHT_MAX
    queue_max: int = QUEUE_MAX
    connect_timeout_ms: int = CONNECT_TIMEOUT_MS


@dataclass(frozen=True, slots=True)
class LinkHandlers:
    """Who hears of it. All run in the event loop and must not block.

    `on_message(topic, payload, qos, retain)`: invalid UTF-8 in a topic arrives as U+FFFD, an
    absurdly long payload arrives cut (still longer than any legal one): both are for the
    decoder to count, since ending the connection would make one retained message a crash loop.
    """

    on_up: Callable[[], None]
    on_down: Callable[[str], None]
    on_message: Callable[[str, bytes, int, bool], None]


class Link(Protocol):
    """One connection attempt and, if it succeeds, the connection."""

    @property
    def queued(self) -> int:
        """Messages accepted by `publish` that weren't handed to the socket yet."""

    @property
    def inflight(self) -> int:
        """QoS 1 messages handed to the socket and not yet acknowledged."""

    def open(self) -> None:
        """Start connecting, in the running event loop. Once per object."""

    def publish(self, topic: str, payload: bytes, qos: int, retain: bool) -> bool:
        """Send or queue. False: queue full or link not up, and nothing was queued.

        QoS 1 keeps its order; QoS 0 doesn't wait for the window of QoS 1 (a heartbeat is worth
        more than the backlog). Raises `ValueError` for a topic or QoS that isn't legal.
        """

    def close(self, orderly: bool) -> None:
        """End it: `orderly` sends what is queued, then DISCONNECT (no will); else the socket just dies."""

    def pause_reading(self) -> None:
        """No `on_message` after this returns; the peer feels TCP's back-pressure. Pings go on."""

    def resume_reading(self) -> None:
        """Deliver again, beginning with what had been read already."""


LinkFactory = Callable[[LinkOptions, LinkHandlers], Link]
