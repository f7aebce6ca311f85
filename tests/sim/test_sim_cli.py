"""`fm sim`: exit codes, what is said and where, bad input, Ctrl-C, workers that die."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fleetmuster.cli import main as fm
from sim import safety
from sim.cli import main
from sim.command import findings
from sim.command.tally import Tally
from sim.command.workers import Crew, Draw
from sim.drawing import draw_plan
from sim.plan import Breach, Outcome, Verdict
from sim.scenarios import write_scenario

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--devices", "2", "--minutes", "0.1"]
HELD, VIOLATED, LATE, CRASHED = Verdict.HELD, Verdict.VIOLATED, Verdict.NOT_CONVERGED, Verdict.CRASHED


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Reports of failures go nowhere else."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def sim(capsys):
    """`sim(*words)`: (exit code, stdout, stderr)."""

    def run(*words):
        code = main(list(words))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def verdicts(monkeypatch):
    """`verdicts({seed: verdict})`: seeds end so without a world; the others hold."""

    def lay_out(ends, hashes=lambda plan, call: f"{plan.seed:032x}"):
        calls = []

        def run_plan(plan, make_storage, watch=None):
            calls.append(plan)
            verdict = ends.get(plan.seed, HELD)
            breaches = [Breach(1_000_500, "I1", "two <b>live</b>")] if verdict is VIOLATED else []
            detail = {LATE: "j1.0 waits", CRASHED: "Traceback\nValueError: no"}.get(verdict, "")
            return Outcome(
                plan, verdict, detail, breaches, 60_000, 3, 1, {"cut": 2}, hashes(plan, len(calls))
            )

        monkeypatch.setattr(safety, "run_plan", run_plan)
        return calls

    return lay_out


# ---------------------------------------------------------------------- exit codes


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ({}, 0),
        ({2: VIOLATED}, 1),
        ({2: LATE}, 10),
        ({2: CRASHED}, 11),
        ({1: LATE, 2: VIOLATED}, 1),
        ({0: VIOLATED, 1: LATE, 2: CRASHED}, 11),
    ],
)
def test_the_worst_seed_decides_the_exit_code(sim, verdicts, ends, code):
    verdicts(ends)
    ended, out, _ = sim("safety", "--seeds", "4", "--jobs", "1", *SMALL)
    assert ended == code
    shown = dict(line.split(None, 1) for line in out.splitlines() if line.startswith(("held", "violated")))
    assert shown == {
        "held": str(4 - len(ends)),
        "violated": str(list(ends.values()).count(VIOLATED)),
    }


def test_nothing_failed_is_told_with_what_that_proves(sim, verdicts):
    verdicts({})
    _, out, err = sim("safety", "--seeds", "300", "--jobs", "1", *SMALL)
    assert "0 of 300 seeds is not a proof" in out and "1 in 100" in out
    assert err == "" and not Path("fm-sim").exists()


def test_json_is_one_object_on_stdout(sim, verdicts):
    verdicts({5: VIOLATED})
    code, out, _ = sim("safety", "--seeds", "3", "--from", "4", "--jobs", "1", "--json", *SMALL)
    told = json.loads(out)
    assert code == 1
    assert told.items() >= {
        "seeds": 3, "held": 2, "violations": 1, "not_converged": 0, "crashed": 0, "virtual_ms": 180_000,
        "starts": 9, "failovers": 3, "faults": {"cut": 6}, "interrupted": False,
    }.items()  # fmt: skip
    assert set(told) >= {"trace_hash", "core_seconds", "device_seconds_per_core_second"}
    assert told["failures"] == [
        {
            "seed": 5,
            "verdict": "violated",
            "detail": "",
            "breaches": [{"at_ms": 1_000_500, "invariant": "I1", "text": "two <b>live</b>"}],
        }
    ]


def test_one_seed_tells_what_it_draws_before_it_begins_and_its_hash_at_the_end(sim, verdicts):
    calls = verdicts({})
    _, out, _ = sim("safety", "--seed", "7", *SMALL)
    assert len(calls) == 1
    drawn = safety.describe(draw_plan(7, 2, 6_000))
    assert out.startswith(drawn) and f"{7:032x}" in out[len(drawn) :]


def test_no_faults_means_none_and_families_are_exactly_those(sim, verdicts):
    calls = verdicts({})
    sim("safety", "--seed", "7", "--faults", "none", *SMALL)
    sim("safety", "--seed", "7", "--faults", "cuts, broker", "--devices", "3")
    assert (calls[0].faults, calls[0].families, calls[0].quirks) == ((), (), ())
    assert set(calls[1].families) == {"cuts", "broker"} and len(calls[1].faults) > 0


def test_profiles_are_device_classes(sim, verdicts):
    calls = verdicts({})
    sim("safety", "--seed", "7", "--profile", "pi-zero-2w", *SMALL)
    assert {device.profile for device in calls[0].devices} == {"pi-zero-2w"}


# ---------------------------------------------------------------------- failures


def test_a_failure_is_shrunk_written_down_and_can_be_played_again(sim, verdicts):
    verdicts({7: VIOLATED})
    code, _, err = sim("safety", "--seeds", "9", "--jobs", "1", "--devices", "3")
    assert code == 1
    assert "I1 at 1000500 ms: two <b>live</b>" in err and "shrunk in" in err
    assert "  fm sim safety --seed 7 --devices 3\n  fm sim safety --scenario fm-sim/seed-7.toml" in err
    assert json.loads(Path("fm-sim/report.json").read_text())["summary"]["violations"] == 1
    assert "Seed 7 violated" in Path("fm-sim/report.html").read_text()
    again, _, err = sim("safety", "--scenario", "fm-sim/seed-7.toml", "--no-shrink")
    assert again == 1 and "shrunk" not in err


def test_the_worst_failure_is_the_one_that_is_looked_at(sim, verdicts):
    verdicts({1: LATE, 3: VIOLATED})
    sim("safety", "--seeds", "5", "--jobs", "1", "--no-shrink", *SMALL)
    assert "Seed 3 violated" in Path("fm-sim/report.html").read_text()


def test_a_report_of_what_held_shows_the_first_seed_with_its_whole_plan(sim, verdicts):
    verdicts({})
    code, _, err = sim(
        "safety", "--seeds", "3", "--from", "5", "--jobs", "1", "--report", "out", "--devices", "3"
    )
    told = json.loads(Path("out/report.json").read_text())
    assert code == 0 and "report: out/report.html" in err
    assert told["title"] == "Seed 5 held" and told["scenario"] == write_scenario(draw_plan(5, 3))
    assert sorted(path.name for path in Path("out").iterdir()) == ["report.html", "report.json"]


def test_a_replay_that_takes_another_course_is_the_finding(sim, verdicts):
    verdicts({1: VIOLATED}, hashes=lambda plan, call: f"{call}")
    code, _, err = sim("safety", "--seeds", "2", "--jobs", "1", *SMALL)
    assert code == 11 and "not deterministic" in err


def test_what_throws_is_a_crash_with_its_traceback(sim, monkeypatch):
    def broken(plan, make_storage, watch=None):
        raise ZeroDivisionError("a checker divides")

    monkeypatch.setattr(safety, "run_plan", broken)
    code, _, err = sim("safety", "--seed", "1", *SMALL)
    assert code == 11 and "ZeroDivisionError: a checker divides" in err


def test_stop_after_ends_early_and_forgets_what_ran_ahead(sim, verdicts):
    calls = verdicts({2: VIOLATED, 4: VIOLATED})
    _, out, _ = sim(
        "safety", "--seeds", "50", "--stop-after", "2", "--jobs", "1", "--json", "--no-shrink", *SMALL
    )
    told = json.loads(out)
    assert (told["seeds"], told["violations"]) == (5, 2) and len(calls) < 8


def test_a_full_disk_is_told_and_hides_no_verdict(sim, verdicts, monkeypatch):
    def full(path, text):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    verdicts({0: VIOLATED})
    monkeypatch.setattr(findings, "_put", full)
    code, out, err = sim("safety", "--seeds", "2", "--jobs", "1", "--no-shrink", *SMALL)
    assert code == 11 and "violated          1" in out
    assert "the report can't be written: No space left on device" in err


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["safety", "--seeds", "0"], "'0' is no whole number from 1"),
        (["safety", "--seeds", "-1"], "'-1' is no whole number"),
        (["safety", "--seeds", "１"], "is no whole number"),
        (["safety", "--minutes", "1e9"], "'1e9' is no number from 0.1 to 1440"),
        (["safety", "--devices", "1001"], "from 1 to 1000"),
        (["safety", "--jobs", "many"], "'many' is no whole number"),
        (["safety", "--profile", "pi5"], "did you mean pi-5-8g?"),
        (["safety", "--faults", "brokr"], "did you mean broker?"),
        (["safety", "--faults", ""], "no family of faults is called ''"),
        (["safety", "--seed", "1", "--seeds", "2"], "--seed names one seed"),
        (["safety", "--scenario", "x.toml", "--from", "2"], "--from can't be said with it"),
        (["safety", "--scenario", "x.toml", "--profile", "pi-5-8g"], "--profile can't be said with it"),
        (["safety", "--scenario", "x.toml"], "there is no file x.toml"),
        (["safety", "--scenario", "blakout"], "no scenario is called 'blakout'"),
        (["safety", "--sed", "1"], "unrecognized arguments: --sed"),
        (["safety", "extra"], "unrecognized arguments: extra"),
        (["check", "x.jsonl"], "can't read x.jsonl: No such file"),
        (["check"], "HISTORY"),
        (["fly"], "invalid choice: 'fly'"),
        ([], "COMMAND"),
    ],
)
def test_wrong_words_are_told_in_a_line(sim, words, says):
    code, out, err = sim(*words)
    assert (code, out) == (2, "")
    assert err.startswith("fm sim: ") and says in err and "Traceback" not in err


def test_a_wrong_scenario_is_told_with_file_and_line(sim):
    text = write_scenario(draw_plan(3, 2, 20_000))
    Path("bad.toml").write_text(text.replace("profile =", "profil =", 1))
    code, out, err = sim("safety", "--scenario", "bad.toml")
    assert (code, out) == (2, "") and err.startswith("fm sim: bad.toml:7: ") and "profil" in err
    Path("bad.toml").write_text("a = [\n")
    assert "bad.toml:" in sim("safety", "--scenario", "bad.toml")[2]
    Path("bad.toml").write_bytes(b"\xff\xfe")
    assert "byte 0 is not UTF-8" in sim("safety", "--scenario", "bad.toml")[2]
    Path("dir.toml").mkdir()
    assert "can't read dir.toml" in sim("safety", "--scenario", "dir.toml")[2]


def test_a_wrong_history_is_told_with_file_and_line(sim):
    Path("h.jsonl").write_text('{"at_ms":1,"saw":"JournalLost","device":"d"}\n{"at_ms":1,"saw":"Nothing"}\n')
    code, _, err = sim("check", "h.jsonl")
    assert code == 2 and err.startswith("fm sim: h.jsonl:2: expected")


def test_a_report_folder_that_can_not_be_written_is_told_before_anything_runs(sim, verdicts):
    calls = verdicts({})
    Path("taken").write_text("")
    code, out, err = sim("safety", "--seed", "1", "--report", "taken", *SMALL)
    assert (code, out, calls) == (2, "", []) and "can't write into taken" in err


def test_a_base_install_is_told_what_to_install():
    blocked = "import sys; sys.modules['numpy'] = None; from sim.cli import main; sys.exit(main(['safety']))"
    done = subprocess.run(
        [sys.executable, "-c", blocked], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert "pip install 'fleetmuster[sim]'" in done.stderr and "'numpy'" in done.stderr


# ---------------------------------------------------------------------- the other commands


def test_both_names_reach_it(capsys):
    assert fm(["sim", "scenarios", "--json"]) == 0
    told = capsys.readouterr().out
    done = subprocess.run(
        [sys.executable, "-m", "sim", "scenarios", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, told)
    assert isinstance(json.loads(told), list)


def test_a_history_is_checked(sim):
    began = (
        '{"at_ms":%d,"saw":"RunBegan","device":"%s","task":"j.0","attempt":%d,"at_most_one":true,'
        '"lease_ms":30000}\n'
    )
    Path("h.jsonl").write_text(began % (1, "d1", 1))
    assert sim("check", "h.jsonl")[0] == 0
    Path("h.jsonl").write_text(began % (1, "d1", 1) + began % (5, "d2", 2))
    code, out, _ = sim("check", "h.jsonl", "--json")
    assert code == 1 and json.loads(out)["violations"][0]["invariant"] == "I1"
    Path("h.jsonl").write_text("")
    code, _, err = sim("check", "h.jsonl")
    assert code == 11 and "shows nothing" in err


# ---------------------------------------------------------------------- Ctrl-C and workers


def test_ctrl_c_shows_the_table_so_far(sim, monkeypatch, verdicts):
    verdicts({})
    plain = safety.run_plan

    def pressed(plan, make_storage, watch=None):
        if plan.seed == 3:
            raise KeyboardInterrupt
        return plain(plan, make_storage, watch)

    monkeypatch.setattr(safety, "run_plan", pressed)
    code, out, _ = sim("safety", "--seeds", "50", "--jobs", "1", "--json", *SMALL)
    told = json.loads(out)
    assert code == 130 and told["seeds"] == 3 and told["interrupted"] is True


def test_any_number_of_workers_finds_the_same(sim):
    words = ["safety", "--seeds", "4", "--json", "--no-shrink", *SMALL]
    told = []
    for jobs in ("1", "2"):
        code, out, _ = sim(*words, "--jobs", jobs)
        told.append({k: v for k, v in json.loads(out).items() if "core_second" not in k} | {"code": code})
    assert told[0] == told[1] and told[0]["starts"] > 0


def test_a_killed_worker_costs_its_seed_and_nothing_else():
    crew = Crew(Draw(2, 6_000), range(3), 1)
    processes = [crew._workers[0].process]
    processes[0].kill()
    tally = Tally()
    try:
        for seed, run in crew.runs():
            tally.add(seed, run)
        processes.append(crew._workers[0].process)
    finally:
        crew.dismiss()
    lost, *others = tally.outcomes()
    assert lost.verdict is CRASHED and f"was killed by signal {int(signal.SIGKILL)}" in lost.detail
    assert all(outcome.virtual_ms > 6_000 for outcome in others) and len(others) == 2
    assert all(process.exitcode is not None for process in processes)


def test_a_crew_that_is_dismissed_leaves_no_process():
    crew = Crew(Draw(2, 6_000), range(100), 2)
    runs = crew.runs()
    next(runs)
    crew.dismiss()
    assert all(worker.process.exitcode is not None for worker in crew._workers)
