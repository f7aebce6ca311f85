"""Output on its way: numbered, resent until stored, bounded on disk and in flight (C3); and leaving."""

from __future__ import annotations

from edge_agent.core.effects import DropOutput, ForgetRun, Quit, ReadOutput, StopRun
from edge_agent.core.events import OutputRead, RunStarted, StopRequested
from protocol.core import Disconnect, LinkDown, Note
from protocol.limits import OUTBOX_WINDOW
from protocol.messages import OutputChunk, Status
from protocol.tasks import RunState


class Disk:
    """Captured output as the world would hold it; answers every read."""

    def __init__(self, bench, kit):
        self.bench, self.kit, self.files, self.dropped = bench, kit, {}, []

    def write(self, task, stream, data, attempt=1):
        key = (task, attempt, stream)
        self.files[key] = self.files.get(key, b"") + data

    def serve(self, effects):
        """Answer reads until the agent asks no more; every chunk published on the way."""
        chunks, todo = [], list(effects)
        while todo:
            effect = todo.pop(0)
            if isinstance(effect, DropOutput):
                self.dropped.append((effect.task, effect.attempt))
            if isinstance(effect, ReadOutput):
                held = self.files.get((effect.task, effect.attempt, effect.stream), b"")
                data = held[effect.offset : effect.offset + effect.bytes_max]
                event = OutputRead(effect.task, effect.attempt, effect.stream, effect.offset, data, len(held))
                todo += self.bench.feed(event)
            chunks += self.kit.published([effect], OutputChunk)
        return chunks


def test_output_of_an_ended_run_is_read_to_its_end(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    disk.write("job.1", 1, b"hello\n")
    chunks = disk.serve(bench.exit("job.1"))
    assert [(c.stream, c.offset, c.data, c.last) for c in chunks] == [
        (1, 0, b"hello\n", True),
        (2, 0, b"", True),
    ]
    assert [c.seq for c in chunks] == [1, 2]
    assert {c.outbox for c in chunks} == {bench.agent.connection.session}


def test_a_live_run_is_polled_and_a_silent_one_ever_less(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    reads = []
    for _ in range(60):
        effects = bench.at(bench.now + 500)
        reads.append(len(kit.of(effects, ReadOutput)))
        disk.serve(effects)
    assert 8 <= sum(1 for r in reads if r) <= 20
    disk.write("job.1", 1, b"x")
    assert disk.serve(bench.at(bench.now + 4_000))[0].data == b"x"


def test_one_read_at_a_time(bench, kit):
    bench.running(kit.attempt("a"), kit.attempt("b"))
    assert len(kit.of(bench.at(bench.now + 10_000), ReadOutput)) == 1


def test_simulated_runs_are_not_polled(bench, kit):
    bench.running(kit.attempt(runtime="simulated"))
    assert kit.of(bench.at(bench.now + 10_000), ReadOutput) == []
    assert kit.of(bench.exit("job.1"), ReadOutput) == []
    assert kit.of(bench.document(2), ForgetRun) == [ForgetRun("job.1", 1)]


def test_a_read_from_before_the_exit_is_not_taken_for_the_end(bench, kit):
    bench.running(kit.attempt())
    read = kit.of(bench.at(bench.now + 500), ReadOutput)[0]
    bench.exit("job.1")
    effects = bench.feed(OutputRead("job.1", 1, read.stream, 0, b"half", 4))
    assert [c.last for c in kit.published(effects, OutputChunk)] == [False]
    disk = Disk(bench, kit)
    disk.write("job.1", 1, b"half and half")
    assert b"".join(c.data for c in disk.serve(effects) if c.stream == 1) == b"half and half"


def test_the_window_is_trimmed_only_by_what_is_stored(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    disk.write("job.1", 1, bytes(10_000_000))
    chunks = disk.serve(bench.exit("job.1"))
    while more := disk.serve(bench.answer()):
        chunks += more
    assert len(chunks) == OUTBOX_WINDOW
    outbox = bench.agent.outbox.id
    assert disk.serve(bench.answer(outbox=outbox + 1, stored=len(chunks))) == []
    assert disk.serve(bench.answer(outbox=outbox, stored=10_000)) == []
    more = disk.serve(bench.answer(outbox=outbox, stored=chunks[-1].seq))
    assert more[0].seq == chunks[-1].seq + 1 and more[0].base == chunks[-1].seq + 1


def test_a_full_window_asks_for_its_acknowledgement(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    bench.answer()
    disk.write("job.1", 1, bytes(10_000_000))
    disk.serve(bench.exit("job.1"))
    assert len(kit.heartbeats(bench.at(bench.now + 1_500))) == 1


def test_all_output_arrives_whole_and_in_order(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    data = bytes(range(256)) * 4_000
    disk.write("job.1", 1, data)
    disk.write("job.1", 2, b"err")
    chunks = disk.serve(bench.exit("job.1"))
    while not (
        any(c.last and c.stream == 1 for c in chunks) and any(c.last and c.stream == 2 for c in chunks)
    ):
        bench.at(bench.now + 1_100)
        chunks += disk.serve(bench.answer(outbox=bench.agent.outbox.id, stored=chunks[-1].seq))
    assert b"".join(c.data for c in chunks if c.stream == 1) == data
    assert [c.seq for c in chunks] == list(range(1, len(chunks) + 1))


def test_unacknowledged_chunks_go_out_again_on_reconnect_and_after_a_stall(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    disk.write("job.1", 1, b"hello")
    sent = disk.serve(bench.exit("job.1"))
    bench.down()
    bench.at(bench.now + 5_000)
    assert [c.seq for c in kit.published(bench.up(), OutputChunk)] == [c.seq for c in sent]
    stalled = kit.published(bench.at(bench.now + 16_000), OutputChunk)
    assert [c.seq for c in stalled] == [c.seq for c in sent]


def test_slow_answers_shrink_what_is_in_flight(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    for _ in range(8):
        bench.at(bench.now + 10_000)
        bench.now += 1_999 + 1
        bench.answer(seq=bench.agent.heartbeats._seq)
    disk.write("job.1", 1, bytes(1_000_000))
    assert sum(len(c.data) for c in disk.serve(bench.exit("job.1"))) <= 2 * 16_384


def test_output_is_dropped_when_stored_and_no_longer_asked_for(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    chunks = disk.serve(bench.exit("job.1"))
    disk.serve(bench.answer(outbox=bench.agent.outbox.id, stored=chunks[-1].seq))
    assert disk.dropped == [], "the document still names it"
    effects = bench.document(2)
    assert kit.of(effects, ForgetRun) == [ForgetRun("job.1", 1)]
    assert kit.of(effects, DropOutput) == [DropOutput("job.1", 1)]
    assert bench.agent.memory.outputs == {} and bench.agent.outbox.outputs == {}


def test_output_that_is_not_stored_outlives_the_document(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    chunks = disk.serve(bench.exit("job.1"))
    assert kit.of(bench.document(2), DropOutput) == []
    effects = bench.answer(outbox=bench.agent.outbox.id, stored=chunks[-1].seq)
    assert kit.of(effects, DropOutput) == [DropOutput("job.1", 1)]


def test_a_restarted_agent_sends_what_is_still_on_disk_from_the_start(bench, kit):
    disk = Disk(bench, kit)
    bench.running(kit.attempt())
    disk.write("job.1", 1, b"hello")
    disk.serve(bench.exit("job.1"))
    bench.document(2)
    again = bench.restarted()
    other = Disk(again, kit)
    other.files = disk.files
    other.serve(again.boot())
    chunks = other.serve(again.up())
    assert [(c.stream, c.offset, c.data) for c in chunks] == [(1, 0, b"hello")]
    assert chunks[0].outbox != bench.agent.outbox.id and chunks[0].seq == 1
    other.serve(again.answer(outbox=again.agent.outbox.id, stored=1))
    assert other.dropped == [("job.1", 1)]


def test_the_disk_bound_drops_the_oldest_and_says_so(kit):
    bench = kit.Bench(outbox_bytes_max=1_000).ready()
    disk = Disk(bench, kit)
    bench.running(*[kit.attempt(f"job.{n}") for n in range(4)])
    bench.down()
    notes = []
    for n in range(4):
        disk.write(f"job.{n}", 1, bytes(400))
        before = len(disk.dropped)
        disk.serve(bench.exit(f"job.{n}"))
        notes.append(len(disk.dropped) - before)
    assert disk.dropped == [("job.0", 1), ("job.1", 1)]
    assert kit.of(bench.effects, Note) or sum(notes) == 2


def test_goodbye_is_a_status_then_a_disconnect_then_the_end(bench, kit):
    effects = bench.feed(StopRequested("stopped", stop_runs=False))
    status = kit.published(effects, Status)[0]
    assert (status.online, status.reason) == (False, "stopped")
    assert isinstance(effects[-1], Disconnect)
    assert kit.of(bench.feed(LinkDown(bench.agent.connection.session, "closed")), Quit)
    assert kit.connects(bench.at(bench.now + 100_000)) == []


def test_leaving_with_its_runs_reports_their_ends_first(bench, kit):
    bench.running(kit.attempt())
    effects = bench.feed(StopRequested("stopped", stop_runs=True))
    assert kit.of(effects, StopRun) == [StopRun("job.1", 1, 5_000)]
    assert kit.of(effects, Disconnect) == []
    report = kit.runs(bench.exit("job.1", reason="stopped"))[-1]
    assert report.entries[0].state is RunState.STOPPED
    assert kit.of(bench.at(bench.now + 1_000), Disconnect)


def test_nothing_starts_while_leaving(bench, kit):
    bench.running(kit.attempt())
    bench.feed(StopRequested("stopped", stop_runs=True))
    bench.document(2, kit.attempt(), kit.eager("job.2"))
    assert "job.2" not in bench.states()


def test_leaving_is_bounded_when_nobody_answers(bench, kit):
    bench.running(kit.attempt())
    bench.feed(StopRequested("stopped", stop_runs=True))
    assert kit.of(bench.at(bench.now + 20_000), Quit)


def test_leaving_without_a_connection_is_immediate(bench, kit):
    bench.down()
    assert kit.of(bench.feed(StopRequested("stopped", stop_runs=True)), Quit)


def test_a_started_run_that_nobody_asked_for_any_more_is_still_owned(bench, kit):
    bench.document(1, kit.attempt())
    bench.answer()
    bench.document(2)
    bench.feed(RunStarted("job.1", 1))
    assert bench.states() == {"job.1": RunState.STOPPING}
