"""The guard with real processes: one run, its end, its limits."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent import guard_frames as frames
from edge_agent import guard_limits
from edge_agent.guard_kernel import boottime_ms
from edge_agent.runtimes.host import RunSpec
from edge_agent.runtimes.process import ProcessRuntime

sys.path.append(str(Path(__file__).parent))
from guard_bench import ROOT, Bench, alive, sh, soon, token, until

pytestmark = pytest.mark.live


@pytest.fixture(params=["auto", "weak"])
def bench(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(tmp_path, "--containment", request.param)
    try:
        yield made
    finally:
        made.close()


# ------------------------------------------------------------------ one run


def test_exit_code_output_and_environment_arrive(bench: Bench) -> None:
    kind, ints, _ = bench.start(
        *sh(
            "echo $FM_TASK $FM_ATTEMPT $FM_DEVICE $COLOUR $FM_INDEX; pwd; cat; env | wc -l;"
            "echo no >&2; exit 7"
        )
    )
    assert kind == frames.STARTED
    assert ints[1] > 0
    assert bench.exit() == (7, 0, b"exited")
    lines = bench.output().split()
    assert lines[:5] == ["t", "1", "pi-1", "blue", "0"]
    assert lines[5] == str(bench.folder / "runs/t.1/work")
    assert int(lines[6]) <= 12
    assert bench.output(2) == "no\n"


def test_death_by_signal_is_reported(bench: Bench) -> None:
    bench.start(*sh("kill -USR1 $$"))
    assert bench.exit() == (-1, signal.SIGUSR1, b"signalled")


def test_what_cannot_be_executed_is_refused_by_name(bench: Bench) -> None:
    kind, ints, blobs = bench.start("no-such-program")
    assert (kind, ints[1], blobs[1]) == (frames.REFUSED, 1, b"not found: no-such-program")
    kind, ints, blobs = bench.start("/etc/passwd")
    assert (kind, ints[1], blobs[1]) == (frames.REFUSED, 1, b"not executable: /etc/passwd")
    with pytest.raises(ValueError, match="empty command"):
        bench.start()
    assert bench.start("true")[0] == frames.STARTED


def test_a_bad_name_is_refused_and_the_connection_lives(bench: Bench) -> None:
    good = frames.unpack(bench.runtime.start_frame(RunSpec("t", 1, "process", ("true",), {}), 0)[4:])
    bench.send(frames.START, good[1], (b"../../etc", *good[2][1:]))
    assert bench.wait(frames.REFUSED)[2][1].startswith(b"bad request")
    assert bench.start("true")[0] == frames.STARTED


def test_signals_and_descriptors_are_as_a_program_expects(bench: Bench) -> None:
    bench.start(*sh("ls /proc/self/fd; grep -E 'SigIgn|SigBlk' /proc/self/status"))
    assert bench.exit() == (0, 0, b"exited")
    words = bench.output().split()
    assert words[:4] == ["0", "1", "2", "3"]
    assert words[4:] == ["SigBlk:", "0" * 16, "SigIgn:", "0" * 16]


@pytest.mark.skipif(not ROOT, reason="NOT RUN: changing the user needs root")
def test_a_run_gets_the_user_it_was_promised(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.runtime = ProcessRuntime(tmp_path, "pi-1", uid=65534, gid=65534)
    try:
        bench.start(*sh("id -u; id -g; id -G; touch mine; grep NoNewPrivs /proc/self/status"))
        assert bench.exit() == (0, 0, b"exited")
        assert bench.output().split() == ["65534", "65534", "65534", "NoNewPrivs:", "1"]
        assert (tmp_path / "runs/t.1/work/mine").stat().st_uid == 65534
    finally:
        bench.close()


def test_output_stops_at_its_cap_and_the_run_goes_on(bench: Bench) -> None:
    bench.start(*sh("head -c 3000000 /dev/zero; echo end >&2"), output_bytes_max=1000)
    assert bench.exit() == (0, 0, b"exited")
    assert bench.runtime.output_bytes("t", 1, 1) == 1000
    assert bench.output(2) == "end\n"


def test_a_full_disk_costs_the_output_and_not_the_run(bench: Bench) -> None:
    kind, ints, blobs = frames.unpack(
        bench.runtime.start_frame(RunSpec("t", 1, "process", sh("head -c 300000 /dev/zero; exit 4"), {}), 0)[
            4:
        ]
    )
    bench.send(kind, ints, (*blobs[:2], b"/dev/full", *blobs[3:]))
    assert bench.exit() == (4, 0, b"exited")


def test_what_a_run_leaves_behind_ends_with_it(bench: Bench) -> None:
    word = token()
    bench.start(*sh(f"setsid -f sleep {word}; sleep 0.2"))
    assert bench.exit() == (0, 0, b"exited")
    assert alive(word) == []


# ------------------------------------------------------------------ the end of a run


def test_deadline_gives_a_grace_and_then_kills_the_whole_tree(bench: Bench) -> None:
    word = token()
    text = (
        f"trap 'echo told' TERM; setsid -f sh -c \"trap '' TERM; sleep {word}\"; while :; do sleep 0.05; done"
    )
    assert bench.start(*sh(text), deadline_ms=soon(1500), stop_grace_ms=700)[0] == frames.STARTED
    assert bench.exit() == (-1, signal.SIGKILL, b"deadline")
    assert bench.output() == "told\n"
    assert alive(word) == []


def test_a_run_that_obeys_ends_before_its_deadline(bench: Bench) -> None:
    deadline_ms = soon(60_000)
    bench.start("sleep", token(), deadline_ms=deadline_ms, stop_grace_ms=120_000, timeout_ms=200)
    assert bench.exit() == (-1, signal.SIGTERM, b"timeout")
    assert boottime_ms() < deadline_ms


def test_an_extended_deadline_holds_and_an_earlier_one_is_ignored(bench: Bench) -> None:
    first_ms = soon(1000)
    bench.start("sleep", token(), deadline_ms=first_ms, stop_grace_ms=0)
    bench.send(frames.EXTEND, (1, first_ms + 900_000), (b"t",))
    bench.send(frames.EXTEND, (1, first_ms + 1), (b"t",))
    until(lambda: boottime_ms() > first_ms + 100)
    live, _ = bench.list()
    assert [frame[1][:2] for frame in live] == [(1, first_ms + 900_000)]


def test_stop_terms_and_kills_after_the_grace(bench: Bench) -> None:
    bench.start(*sh("trap 'echo told' TERM; echo ready; while :; do sleep 0.05; done"))
    until(lambda: bench.output() == "ready\n")
    bench.send(frames.STOP, (1, 300), (b"t",))
    assert bench.exit() == (-1, signal.SIGKILL, b"stopped")
    assert bench.output() == "ready\ntold\n"


def test_nothing_starts_at_or_after_its_deadline(bench: Bench) -> None:
    for late_ms in (0, 1, 10_000):
        frame = bench.start("true", deadline_ms=boottime_ms() - late_ms)
        assert (frame[0], frame[2][1]) == (frames.REFUSED, b"deadline passed")
    assert bench.list() == ([], [])


def test_a_guard_that_was_frozen_starts_nothing_late_and_kills_first(bench: Bench) -> None:
    assert bench.guard is not None and bench.sock is not None
    word = token()
    bench.start("sleep", word, task="old", deadline_ms=soon(600), stop_grace_ms=0)
    bench.guard.send_signal(signal.SIGSTOP)
    late = RunSpec("new", 1, "process", ("sleep", word), {})
    bench.sock.sendall(bench.runtime.start_frame(late, soon(300)))
    time.sleep(1.0)
    bench.guard.send_signal(signal.SIGCONT)
    assert bench.wait(frames.REFUSED, frames.STARTED)[2] == (b"new", b"deadline passed")
    assert bench.exit() == (-1, signal.SIGKILL, b"deadline")
    assert alive(word) == []


@pytest.mark.parametrize("containment", ["auto", "weak"])
def test_what_was_told_to_end_while_it_was_prepared_never_begins(tmp_path: Path, containment: str) -> None:
    bench = Bench(tmp_path, "--containment", containment)
    try:
        assert bench.sock is not None
        spec = RunSpec("t", 1, "process", sh("echo began; trap '' TERM; sleep 60"), {})
        stop = frames.pack(frames.STOP, (1, 1_000), (b"t",))
        bench.sock.sendall(bench.runtime.start_frame(spec, soon(60_000)) + stop)
        bench.wait(frames.REFUSED, frames.EXITED)
        assert bench.output() == "" and bench.list()[0] == []
    finally:
        bench.close()


def test_what_is_prepared_is_listed_without_a_process(bench: Bench) -> None:
    assert bench.sock is not None
    spec = RunSpec("t", 1, "process", ("sleep", token()), {})
    bench.sock.sendall(bench.runtime.start_frame(spec, soon(60_000)) + frames.pack(frames.LIST))
    assert bench.wait(frames.LIVE)[1][2] == 0
    pid = bench.wait(frames.STARTED)[1][1]
    bench.wait(frames.LISTED)
    assert pid and bench.list()[0][0][1][2] == pid


def test_one_run_per_task_and_one_start_per_attempt(bench: Bench) -> None:
    bench.start("sleep", token())
    assert bench.start("true", attempt=2)[2][1] == b"task is live"
    assert bench.start("true", attempt=1)[2][1] == b"attempt is known"
    bench.send(frames.STOP, (1, 0), (b"t",))
    bench.exit()
    assert bench.start("true", attempt=1)[2][1] == b"attempt is known"
    assert bench.start("true", attempt=2)[0] == frames.STARTED
    bench.exit()
    bench.send(frames.FORGET, (1,), (b"t",))
    bench.send(frames.FORGET, (2,), (b"t",))
    assert bench.list() == ([], [])


# ------------------------------------------------------------------ limits


def mechanism(bench: Bench) -> bytes:
    assert bench.facts is not None
    return bench.facts[2][1]


def test_memory_limit_kills_and_says_so(bench: Bench) -> None:
    assert bench.facts is not None
    if b"memory" not in bench.facts[2][2]:
        pytest.skip("NOT RUN: no memory controller here")
    bench.start(sys.executable, "-c", "x = bytearray(300 << 20)", memory_mib=48)
    assert bench.exit() == (-1, signal.SIGKILL, b"oom")


def test_pids_limit_holds(bench: Bench) -> None:
    assert bench.facts is not None
    if b"pids" not in bench.facts[2][2]:
        pytest.skip("NOT RUN: no pids controller here")
    bench.runtime.pids_max = 8
    bench.start(*sh("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 5 & done; wait"))
    code, number, _ = bench.exit()
    assert (code, number) != (0, 0)
    assert "fork" in bench.output(2).lower()


def test_without_control_groups_rlimits_hold(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "--limits", "rlimit")
    try:
        assert mechanism(bench) == b"rlimit"
        bench.start(sys.executable, "-c", "x = bytearray(300 << 20)", memory_mib=48)
        assert bench.exit() == (1, 0, b"exited")
        assert "MemoryError" in bench.output(2)
        bench.start(*sh("head -c 3000000 /dev/zero > big"), task="disk", disk_mib=1)
        assert bench.exit() != (0, 0, b"exited")
        assert (tmp_path / "runs/disk.1/work/big").stat().st_size == 1 << 20
    finally:
        bench.close()


def test_control_groups_are_gone_with_their_run(bench: Bench) -> None:
    assert bench.guard is not None
    name = f"{guard_limits.BASE_PREFIX}{bench.guard.pid}-"

    def groups() -> list[str]:
        return [str(path) for path in Path("/sys/fs/cgroup").rglob(f"{name}*/run-*")]

    bench.start("sleep", token(), cpu_milli=500, memory_mib=64)
    assert bool(groups()) == (mechanism(bench) != b"rlimit")
    bench.send(frames.STOP, (1, 0), (b"t",))
    bench.exit()
    until(lambda: not groups())


def test_the_guard_is_small_and_its_supervisors_share_it(bench: Bench) -> None:
    assert bench.guard is not None
    for number in range(12):
        bench.start("sleep", token(), task=f"t{number}")
    text = Path(f"/proc/{bench.guard.pid}/status").read_text()
    assert int(text.split("VmRSS:")[1].split()[0]) <= 12 * 1024
