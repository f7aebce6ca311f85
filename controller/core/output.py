"""Output of tasks: chunks from the devices' outboxes, stored in order, acknowledged when saved.

Per outbox only a contiguous prefix is acknowledged, so a lost chunk comes again (C3). A
chunk names the lowest seq its device still has: a controller without memory starts there.
"""

from __future__ import annotations

from controller.core.ledger import Ledger
from controller.core.records import OutputRow
from protocol.limits import OUTPUT_BYTES_CEILING
from protocol.messages import OutputChunk
from protocol.tasks import AttemptId


class Output:
    """Takes in chunks; the answer to the next heartbeat tells how far."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.fleet = ledger.fleet

    def on_chunk(self, row: int, chunk: OutputChunk) -> None:
        """Stores the next chunk of the outbox; an older one was stored, a later one comes again."""
        stored = (
            int(self.fleet.stored[row]) if int(self.fleet.outbox[row]) == chunk.outbox else chunk.base - 1
        )
        stored = max(stored, chunk.base - 1)
        if chunk.seq != stored + 1:
            self.ledger.count("output_out_of_order")
            self.fleet.note_stored(row, chunk.outbox, stored)
            return
        self.fleet.note_stored(row, chunk.outbox, chunk.seq)
        if self._owner(AttemptId(chunk.task, chunk.attempt)) != self.fleet.names[row]:
            self.ledger.count_garbage("output_of_unknown_attempt")
        elif chunk.offset + len(chunk.data) > OUTPUT_BYTES_CEILING:
            self.ledger.count_garbage("output_too_long")
        else:
            self.ledger.save(
                OutputRow(chunk.task, chunk.attempt, chunk.stream, chunk.offset, chunk.data, chunk.last)
            )
            self.ledger.count("output_chunks")

    def _owner(self, attempt: AttemptId) -> str:
        present = self.ledger.attempts.get(attempt)
        return self.fleet.names[present.device] if present else self.ledger.recent.get(attempt, "")
