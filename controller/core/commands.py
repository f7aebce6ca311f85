"""Commands: one-offs to a device and their answers, matched by id (C1).

They live in memory only: a command that a restart forgets was never promised.
"""

from __future__ import annotations

from dataclasses import dataclass

from controller.core.effects import Reply
from controller.core.events import DevicePinged
from controller.core.ledger import Ledger
from controller.core.views import PingView, RefusalView
from protocol.limits import COMMAND_TTL_MS
from protocol.messages import Answer, Command

PENDING_MAX = 10_000


@dataclass(slots=True)
class _Asked:
    request: int
    row: int
    sent_us: int


class Commands:
    """Sends pings and hands their answers to whoever asked."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.asked: dict[str, _Asked] = {}
        self.issue = 0

    def ping(self, event: DevicePinged, now_ms: int) -> None:
        row = self.fleet.index.get(event.device)
        if row is None or self.fleet.removed[row]:
            self._refuse(event.request, "not_found", f"no device {event.device}")
        elif len(self.asked) >= PENDING_MAX:
            self._refuse(event.request, "busy", "too many commands are waiting for their answers")
        else:
            self.issue += 1
            key = f"{self.ledger.epoch}-{self.issue}"
            self.asked[key] = _Asked(event.request, row, event.sent_us)
            self.ledger.deadlines.set("command", key, now_ms + COMMAND_TTL_MS)
            session = int(self.fleet.session[row])
            self.ledger.publish(
                row, Command(key, session, self.ledger.epoch, self.issue, COMMAND_TTL_MS, "ping")
            )

    def on_answer(self, row: int, answer: Answer) -> None:
        asked = self.asked.get(answer.id)
        if asked is None or asked.row != row:
            self.ledger.count("late_answers")
            return
        del self.asked[answer.id]
        self.ledger.deadlines.clear("command", answer.id)
        self.ledger.emit(Reply(asked.request, PingView(self.fleet.names[row], asked.sent_us, answer.detail)))

    def on_due(self, key: str) -> None:
        asked = self.asked.pop(key, None)
        if asked is not None:
            device = self.fleet.names[asked.row]
            self._refuse(
                asked.request, "unreachable", f"device {device} did not answer within {COMMAND_TTL_MS} ms"
            )

    def _refuse(self, request: int, code: str, detail: str) -> None:
        self.ledger.emit(Reply(request, RefusalView(code, detail)))
