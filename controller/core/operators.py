"""Operators' decisions on devices: cordon, uncordon, drain, add, remove; and quarantine.

Each removes, in the same commit, every attempt that no `Runs` of this session showed as
started (L7); a drain then moves the others a few at a time, stop before start.
"""

from __future__ import annotations

from collections.abc import Callable

from controller.core.effects import ClearRetained, Reply
from controller.core.events import DeviceDecision
from controller.core.holds import Holds
from controller.core.ledger import Attempt, Ledger
from controller.core.records import AttemptState, DeviceRow
from controller.core.sessions import Sessions, new_device
from controller.core.taints import EVICT, TaintFault, read_taint, tolerated
from controller.core.views import DoneView, RefusalView

TAINTS_MAX = 16
EVICTED = "evicted by a taint"
DRAIN_STEP_MS = 500
MOVES_AT_ONCE = 10
MOVES_SHARE = 0.05
"""Voluntary moves in flight: this share of all reserved tasks, at least `MOVES_AT_ONCE` (C4)."""


class Operators:
    """Decisions of people, and the quarantine that the controller decides itself."""

    def __init__(self, ledger: Ledger, holds: Holds, sessions: Sessions) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet
        self.holds = holds
        self.sessions = sessions
        self.draining: dict[int, None] = {}
        """Rows in the order in which their drains began."""
        self.evicting: dict[int, None] = {}
        """Rows with a taint that sends away what does not tolerate it."""
        self.due_ms = 0
        self.others_moving: Callable[[], int] = lambda: 0
        """Moves in flight that `rebalance` began: one budget for all."""
        self.foresee: Callable[[int, str, int], object] = lambda row, actor, now_ms: None
        """Told of each drain before anything moves, so that its tasks know where to go."""

    def recall(self, row: int) -> None:
        """Takes up what a device's record says is to leave it."""
        record = self.fleet.records[row]
        if record.draining:
            self.draining[row] = None
        if not record.removed and any(read_taint(t).effect == EVICT for t in record.taints):
            self.evicting[row] = None
        else:
            self.evicting.pop(row, None)

    def decide(self, event: DeviceDecision, now_ms: int) -> None:
        """Carries out one decision and answers it."""
        row = self.fleet.index.get(event.device)
        if event.verb == "add":
            self._add(event, row, now_ms)
            return
        if row is None or self.fleet.removed[row]:
            self.ledger.emit(Reply(event.request, RefusalView("not_found", f"no device {event.device}")))
            return
        if event.verb in ("taint", "untaint"):
            self.ledger.emit(Reply(event.request, self._mark(row, event, now_ms)))
            return
        {"cordon": self._cordon, "uncordon": self._uncordon, "drain": self._drain, "remove": self._remove}[
            event.verb
        ](row, event.actor, now_ms)
        self.ledger.emit(Reply(event.request, DoneView(event.device)))

    # ------------------------------------------------------------- verbs

    def _add(self, event: DeviceDecision, row: int | None, now_ms: int) -> None:
        if row is None:
            record = new_device(event.device, self.ledger.wall(now_ms))
            self.ledger.admit(record)
            self.ledger.save(record)
            self.ledger.audit(now_ms, "device", event.device, "", "known", event.actor)
        elif self.fleet.removed[row]:
            self.fleet.records[row].removed = False
            self.sessions.forget(row)
            self._trust_again(row, now_ms)
            self.recall(row)
            self.ledger.audit(now_ms, "device", event.device, "removed", "known", event.actor)
        self.ledger.emit(Reply(event.request, DoneView(event.device)))

    def _cordon(self, row: int, actor: str, now_ms: int) -> None:
        before = standing(self.fleet.records[row])
        self.fleet.records[row].cordoned = True
        self._shut(row, before, "cordoned", actor, now_ms)

    def _uncordon(self, row: int, actor: str, now_ms: int) -> None:
        """Also ends a drain and a quarantine: the operator has looked."""
        record = self.fleet.records[row]
        before = standing(record)
        record.cordoned = record.draining = False
        self.draining.pop(row, None)
        self._trust_again(row, now_ms)
        self._audit(row, before, actor, now_ms)

    def _mark(self, row: int, event: DeviceDecision, now_ms: int) -> DoneView | RefusalView:
        """Puts a taint on a device, or takes it off; what may not stay there leaves like at a drain."""
        record, before = self.fleet.records[row], self.fleet.records[row].taints
        try:
            taint = read_taint(event.value)
        except TaintFault as fault:
            return RefusalView("invalid", str(fault))
        text = str(event.value)
        others = tuple(t for t in before if read_taint(t) != taint)
        if event.verb == "untaint" and others == before:
            return RefusalView(
                "not_found", f"{record.device} has no taint {text}; it has: {', '.join(before) or 'none'}"
            )
        after = (*others, text) if event.verb == "taint" else others
        if len(after) > TAINTS_MAX:
            return RefusalView(
                "conflict", f"{record.device} has {TAINTS_MAX} taints already; take one off first"
            )
        if after != before:
            self.fleet.taint(row, after)
            self.ledger.save(record)
            self.ledger.audit(now_ms, "device", record.device, " ".join(before), " ".join(after), event.actor)
            self.recall(row)
            self.step(now_ms)
        return DoneView(record.device)

    def _trust_again(self, row: int, now_ms: int) -> None:
        """Takes over what was decided; a quarantine ends with it: the operator has looked."""
        record = self.fleet.records[row]
        was_quarantined, record.quarantined = record.quarantined, False
        if was_quarantined:
            record.previous_identity = record.doubt = ""  # who speaks next is who was let stay
        self._decided(row)
        if was_quarantined:
            self.ledger.calm(f"quarantine:{record.device}")
            self.sessions.publish_settings(row, now_ms)
            self.holds.listen_again(row)

    def _drain(self, row: int, actor: str, now_ms: int) -> None:
        before = standing(self.fleet.records[row])
        if row not in self.draining:
            self.foresee(row, actor, now_ms)
        self.fleet.records[row].cordoned = self.fleet.records[row].draining = True
        self._shut(row, before, "draining", actor, now_ms)
        self.draining[row] = None
        self.step(now_ms)

    def _remove(self, row: int, actor: str, now_ms: int) -> None:
        """The device is gone for good: nothing on it is waited for longer than its hold."""
        record = self.fleet.records[row]
        before = standing(record)
        record.removed, record.cordoned, record.draining = True, False, False
        attempts = list(self.ledger.by_device[row].values())
        self._shut(row, before, "removed", actor, now_ms)
        self.draining.pop(row, None)
        self.evicting.pop(row, None)
        self.holds.remove([a for a in attempts if a.id in self.ledger.attempts], "device removed", now_ms)
        for attempt in attempts:
            if attempt.id in self.ledger.attempts and not attempt.job.at_most_one:
                self.holds.force(attempt, "device removed", now_ms)
        self.ledger.calm(f"quarantine:{record.device}")
        self.calm_nonsense(row)
        self.ledger.emit(ClearRetained(record.device))

    def quarantine(self, row: int, now_ms: int) -> None:
        """Two identities under one id: nothing is trusted but time (S4)."""
        record = self.fleet.records[row]
        if record.quarantined:
            return
        before = standing(record)
        record.quarantined = True
        self._shut(row, before, "quarantined", "controller", now_ms)
        self.ledger.alarm(
            f"quarantine:{record.device}",
            f"{_why(record)}, then `fm device uncordon {record.device}`",
        )
        self.sessions.publish_settings(row, now_ms)

    def on_nonsense(self, row: int, detail: str, now_ms: int) -> None:
        """An inventory of impossible values came, by itself or forged.

        Whoever has described itself before goes on as what it was: a message that can't be read has
        no session either, and where the broker checks nobody's name it would take any device away.
        """
        if self.fleet.removed[row]:
            return
        record, what = self.fleet.records[row], f"describes itself by what can't be: {detail}"
        if self.fleet.known[row]:
            said = f"device '{record.device}' {what}; what it said before counts on"
            self.ledger.alarm(f"inventory:{record.device}", said)
        else:
            record.doubt = what
            self.quarantine(row, now_ms)

    def calm_nonsense(self, row: int) -> None:
        """It has described itself in words that can be."""
        self.ledger.calm(f"inventory:{self.fleet.names[row]}")

    def _shut(self, row: int, before: str, word: str, actor: str, now_ms: int) -> None:
        self._decided(row)
        self._audit(row, before, actor, now_ms)
        self.holds.remove(self.holds.unstarted(row), word, now_ms)

    def _audit(self, row: int, before: str, actor: str, now_ms: int) -> None:
        """A decision that was taken before changes nothing, and no row tells of it (I10)."""
        record = self.fleet.records[row]
        if before != (after := standing(record)):
            self.ledger.audit(now_ms, "device", record.device, before, after, actor)

    def _decided(self, row: int) -> None:
        self.fleet.decide(row)
        self.ledger.save(self.fleet.records[row])

    # ------------------------------------------------------------- drains

    def next_due_ms(self) -> int | None:
        return self.due_ms if self.draining or self.evicting else None

    def step(self, now_ms: int) -> None:
        """Moves some more attempts off devices that they must leave, within the budget of voluntary moves."""
        self.due_ms = now_ms + DRAIN_STEP_MS
        budget, moving = self.budget(), self.moving() + self.others_moving()
        leaving = {row: self._leaving(row) for row in {**self.draining, **self.evicting}}
        for row, attempts in leaving.items():
            staying = [a for a in attempts if a.row.state is not AttemptState.REMOVED]
            chosen = staying[: max(0, budget - moving)]
            moving += len(chosen)
            self.holds.remove(chosen, "drained" if row in self.draining else EVICTED, now_ms)
            if not self._leaving(row):
                self.evicting.pop(row, None)
                if row in self.draining:
                    self._drained(row, now_ms)

    def budget(self) -> int:
        """How many voluntary moves may be in flight, for whatever reason."""
        return max(MOVES_AT_ONCE, int(MOVES_SHARE * len(self.ledger.attempts)))

    def moving(self) -> int:
        """How many attempts are on their way off devices that they must leave."""
        rows = {**self.draining, **self.evicting}
        return sum(self._moves(a) for row in rows for a in self._leaving(row))

    def _leaving(self, row: int) -> list[Attempt]:
        """What may not stay on a device that is drained, or has a taint that evicts."""
        taints, attempts = self.fleet.records[row].taints, self._of(row)
        if row in self.draining:
            return attempts
        return [a for a in attempts if tolerated(taints, a.job.row.spec.tolerations).evicts]

    def _moves(self, attempt: Attempt) -> bool:
        """Whether it is on its way; one that merely waits for a lost device's return uses up no budget."""
        removed = attempt.row.state is AttemptState.REMOVED
        return removed and (attempt.job.at_most_one or self.holds.awaited(attempt))

    def _of(self, row: int) -> list[Attempt]:
        return list(self.ledger.by_device[row].values())

    def _drained(self, row: int, now_ms: int) -> None:
        record = self.fleet.records[row]
        before = standing(record)
        del self.draining[row]
        record.draining = False
        self._decided(row)
        self._audit(row, before, "controller", now_ms)


def _why(record: DeviceRow) -> str:
    if record.doubt:
        return f"device '{record.device}' {record.doubt}; set its configuration right"
    return f"two machines speak as device '{record.device}'; stop one of them"


def standing(record: DeviceRow) -> str:
    """What was decided about a device; what people decide of a quarantined one stands beside it."""
    if record.removed:
        return "removed"
    decided = "draining" if record.draining else "cordoned" if record.cordoned else "open"
    if record.quarantined:
        return "quarantined" if decided == "open" else f"quarantined, {decided}"
    return decided
