"""What jobs demand and wish, on the command line: read, sent, told, shown."""

import re

import pytest

from controller.api.bodies import JobBody, ResourcesBody, TaskBody
from controller.core.condition_faults import fault_of
from controller.core.conditions import ATTRIBUTES, GROUP_OPERATORS, OPERATORS, PREFIXES
from controller.core.taints import EFFECTS
from controller.scheduler.policies import NAMES as POLICIES
from fleetmuster.commands.job_request import OPTION_OF
from fleetmuster.demands import (
    parse_constraint,
    parse_dependency,
    parse_need,
    parse_preference,
    parse_spread,
)
from fleetmuster.exits import CommandError
from fleetmuster.quantities import parse_cpu, parse_duration, parse_memory

JOB = {
    "id": "j-1",
    "name": "true",
    "kind": "batch",
    "count": 2,
    "guarantee": "at_most_one",
    "max_attempts": 3,
    "lease_ms": 30_000,
    "task": {"runtime": "process", "command": ["true"], "resources": {"cpu_milli": 500}},
    "state": "open",
    "created": "2026-01-02T03:04:05.678Z",
    "tasks": {"pending": 2, "assigned": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0},
}
RICH = {
    **JOB,
    "kind": "cron",
    "guarantee": "at_least_one",
    "policy": "binpack",
    "owner": "team-a",
    "gang": True,
    "parallel_max": 10,
    "depends_on": [{"job": "j0", "until": "ended"}],
    "on_return": "best_score",
    "schedule": "*/5 * * * *",
    "zone": "Europe/Berlin",
    "overlap": False,
    "missed": "once",
    "parent": "",
    "task": {
        "runtime": "process",
        "command": ["x"],
        "resources": {"cpu_milli": 500, "gpu_milli": 500, "up_kbit_s": 2_000, "down_kbit_s": 128, "slots": 2},
        "reference_cpu": True,
        "accelerator_models": ["G2"],
        "extras": {"camera": 1},
        "constraints": [{"attribute": "", "operator": "distinct_device", "value": ""}],
        "affinities": [{"attribute": "site", "operator": "=", "value": "a", "weight": -50}],
        "spreads": [{"attribute": "label.zone", "weight": 80, "targets": {"a": 70}}],
        "tolerations": ["gpu:no_place", "old"],
    },
}
TOLD = """\
id            j-1
name          true
kind          cron
state         open
tasks         2 pending
guarantee     at_least_one
owner         team-a
policy        binpack
schedule      */5 * * * * (Europe/Berlin; no overlap, missed: once)
each time     a batch job of 2
gang          all at once, or none
parallel      at most 10
after         j0 ended
on return     best_score
max attempts  3
lease         30s
created       2026-01-02T03:04:05.678Z
runtime       process
command       x
cpu           0.5 of the reference core
gpu           0.5 of G2
up            2 Mbit/s
down          128 kbit/s
slots         2
extras        1 camera
constraints   distinct_device
preferences   site = a (-50)
spreads       label.zone (80) a=70%
tolerates     gpu:no_place, old
"""


def job(kind, **counts):
    return {**JOB, "kind": kind, "tasks": {**JOB["tasks"], "pending": 0, **counts}}


# ---------------------------------------------------------------------- what is read


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("label.zone=a", ("label.zone", "=", "a")),
        ("label.zone == a b ", ("label.zone", "=", "a b")),
        ("site!=x=y", ("site", "!=", "x=y")),
        ("version >= 1.2", ("version", ">=", "1.2")),
        ("version<2", ("version", "<", "2")),
        ("site in a,b", ("site", "in", "a,b")),
        ("site not_in a,b", ("site", "not_in", "a,b")),
        ("label.gpu exists", ("label.gpu", "exists", "")),
        ("label.x=in a", ("label.x", "=", "in a")),
        ("label.x=", ("label.x", "=", "")),
        ("label.gpu not_exists", ("label.gpu", "not_exists", "")),
        ("profile regex ^pi-[45]$", ("profile", "regex", "^pi-[45]$")),
        ("label.x regex a=b >= c", ("label.x", "regex", "a=b >= c")),
        ("version semver >=1.2, <2", ("version", "semver", ">=1.2, <2")),
        ("label.rack distinct", ("label.rack", "distinct", "")),
        ("label.rack distinct 2", ("label.rack", "distinct", "2")),
        ("distinct_device", ("", "distinct_device", "")),
        (" distinct_device 3 ", ("", "distinct_device", "3")),
        ("extra.camera >= 2", ("extra.camera", ">=", "2")),
    ],
)
def test_a_constraint_is_attribute_operator_value(text, parts):
    assert parse_constraint(text) == parts


@pytest.mark.parametrize(
    "text", ["", "zone", "=a", "a in", "a exists b", "a ~ b", "a b=c", "distinct", "a distinct x", "a regex"]
)
def test_what_is_no_constraint_is_refused(text):
    with pytest.raises(CommandError):
        parse_constraint(text)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("label.zone=a:50", ("label.zone", "=", "a", 50)),
        ("label.zone=a : -100", ("label.zone", "=", "a", -100)),
        ("label.zone=a", ("label.zone", "=", "a", None)),
        ("site in a,b:+5", ("site", "in", "a,b", 5)),
        ("label.gpu exists:7", ("label.gpu", "exists", "", 7)),
        ("label.url=http://x", ("label.url", "=", "http://x", None)),
        ("label.port=tcp:80:9", ("label.port", "=", "tcp:80", 9)),
    ],
)
def test_a_preference_is_a_constraint_and_a_weight(text, parts):
    assert parse_preference(text) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("label.zone", ("label.zone", None, {})),
        (" site:80", ("site", 80, {})),
        ("label.zone a=70,b=30", ("label.zone", None, {"a": 70, "b": 30})),
        ("label.zone:9 a=b=70% , c d=5", ("label.zone", 9, {"a=b": 70, "c d": 5})),
    ],
)
def test_a_spread_is_an_attribute_a_weight_and_shares(text, parts):
    assert parse_spread(text) == parts


@pytest.mark.parametrize("text", ["", ":5", "a:b", "a x", "a x=", "a =5", "a x=1,x=2", "a x=1,", "a x=-1"])
def test_what_is_no_spread_is_refused(text):
    with pytest.raises(CommandError) as caught:
        parse_spread(text)
    assert "write " in caught.value.next_step


@pytest.mark.parametrize("text", ["", "=1", "camera=", "camera=-1", "camera=1.5", "camera=x"])
def test_what_is_no_need_is_refused(text):
    with pytest.raises(CommandError):
        parse_need(text)
    assert (parse_need("camera"), parse_need(" camera = 2 ")) == (("camera", 1), ("camera", 2))


@pytest.mark.parametrize("text", ["", ":ended", "j1:", "j1:failed", "j1:ended:x"])
def test_what_is_no_job_to_wait_for_is_refused(text):
    with pytest.raises(CommandError):
        parse_dependency(text)
    assert parse_dependency("j1:succeeded") == parse_dependency(" j1") == ("j1", "succeeded")


# ---------------------------------------------------------------------- what is sent


def test_run_sends_every_demand_and_wish(api, fm, says):
    api.on("POST", "/jobs", says(JOB, 201))
    ended = fm(
        *("job", "run", "-q", "--gpu", "0.5", "--gpu-model", "G2", "--gpu-model", "T4", "--up", "2M"),
        *("--down", "10M", "--slots", "1", "--need", "camera", "--need", "serial=2", "--reference-cpu"),
        *("--prefer", "label.zone=a:50", "--prefer", "site!=b"),
        *("--spread", "label.zone", "--spread", "site:9 a=70"),
        *("--tolerate", "key=value:no_place", "--tolerate", "*", "--constraint", "distinct_device"),
        *("--policy", "binpack", "--owner", "team-a", "--count", "100", "--parallel", "10"),
        *("--after", "j1", "--after", "j2:ended"),
        *("--guarantee", "at_least_one", "--on-return", "keep_original"),
        *("--", "x"),
    )
    assert ended.code == 0
    assert api.asked[0].body == {
        "kind": "batch",
        "count": 100,
        "guarantee": "at_least_one",
        "policy": "binpack",
        "owner": "team-a",
        "parallel_max": 10,
        "depends_on": [{"job": "j1", "until": "succeeded"}, {"job": "j2", "until": "ended"}],
        "on_return": "keep_original",
        "task": {
            "runtime": "process",
            "command": ["x"],
            "resources": {"gpu_milli": 500, "up_kbit_s": 2_000, "down_kbit_s": 10_000, "slots": 1},
            "accelerator_models": ["G2", "T4"],
            "extras": {"camera": 1, "serial": 2},
            "reference_cpu": True,
            "constraints": [{"attribute": "", "operator": "distinct_device", "value": ""}],
            "affinities": [
                {"attribute": "label.zone", "operator": "=", "value": "a", "weight": 50},
                {"attribute": "site", "operator": "!=", "value": "b"},
            ],
            "spreads": [
                {"attribute": "label.zone"},
                {"attribute": "site", "weight": 9, "targets": {"a": 70}},
            ],
            "tolerations": ["key=value:no_place", "*"],
        },
    }


CRON = ["--cron", "*/5 * * * *", "--zone", "Europe/Berlin", "--overlap", "--missed", "once"]
TIMES = {"schedule": "*/5 * * * *", "zone": "Europe/Berlin", "overlap": True, "missed": "once"}


@pytest.mark.parametrize(
    ("words", "sent"),
    [
        (["--gang", "--count", "4"], {"kind": "batch", "count": 4, "gang": True}),
        (["--daemon"], {"kind": "daemon"}),
        (["--kind", "daemon", "--daemon"], {"kind": "daemon"}),
        (["--daemon", "--count", "2"], {"kind": "daemon", "count": 2}),
        (CRON, {"kind": "cron", "count": 1, **TIMES}),
        (["--zone", "UTC"], {"kind": "batch", "count": 1, "zone": "UTC"}),
    ],
)
def test_kinds_and_times_are_sent_as_said(api, fm, says, words, sent):
    api.on("POST", "/jobs", says(JOB, 201))
    assert fm("job", "run", *words, "--", "x").code == 0
    assert api.asked[0].body == {**sent, "task": {"runtime": "process", "command": ["x"]}}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--kind", "cron"], "--cron"),
        (["--kind", "service", "--daemon"], "contradict"),
        (["--daemon", "--cron", "@daily"], "--daemon and --cron contradict"),
        (["--wait", "--cron", "@daily"], "has no end"),
        (["--up", "2"], "write 500k"),
        (["--need", "camera=many"], "write camera=1"),
        (["--prefer", "zone:50"], "write 'label.zone=a:50'"),
        (["--spread", "label.zone a"], "write label.zone"),
        (["--after", "j-1:failed"], "JOB:ended"),
        (["--missed", "never"], "invalid choice"),
        (["--on-return", "oldest"], "invalid choice"),
    ],
)
def test_wrong_words_say_what_to_write_and_nothing_is_sent(api, fm, words, told):
    ended = fm("job", "run", *words, "--", "x")
    assert (ended.code, ended.out, api.asked) == (2, "", [])
    assert told in ended.err


@pytest.mark.parametrize(
    ("pointer", "option"),
    [
        ("/task/resources/gpu_milli", "--gpu"),
        ("/task/resources/up_kbit_s", "--up"),
        ("/task/affinities/0/attribute", "--prefer"),
        ("/task/spreads/1/targets", "--spread"),
        ("/task/tolerations/0", "--tolerate"),
        ("/task/extras/camera", "--need"),
        ("/task/accelerator_models", "--gpu-model"),
        ("/depends_on/0", "--after"),
        ("/parallel_max", "--parallel"),
        ("/schedule", "--cron"),
        ("/zone", "--zone"),
        ("/policy", "--policy"),
        ("/on_return", "--on-return"),
        ("/task/command/0", "the command after --"),
    ],
)
def test_a_pointer_is_told_as_the_option_that_was_typed(api, fm, refusal, pointer, option):
    api.on("POST", "/jobs", refusal(422, "not so", pointer))
    assert f"next: change {option}\n" in fm("job", "run", "--", "x").err


@pytest.mark.parametrize(
    ("detail", "pointer", "told"),
    [
        ("/zone: no such zone", "/zone", "fm: --zone: no such zone\n  next: change --zone\n"),
        (
            "/task/resources/cpu_milli: must be at most 10,000,000",
            "/task/resources/cpu_milli",
            "fm: --cpu (cpu_milli): must be at most 10,000,000\n  next: change --cpu\n",
        ),
        (
            "/task/accelerator_models: say task.resources.gpu_milli",
            "/task/accelerator_models",
            "fm: --gpu-model: say task.resources.gpu_milli\n  next: change --gpu-model, or say --gpu\n",
        ),
        ("no", "/elsewhere", "fm: no (at /elsewhere)\n"),
    ],
)
def test_what_was_typed_stands_where_the_controller_points(api, fm, refusal, detail, pointer, told):
    api.on("POST", "/jobs", refusal(422, detail, pointer))
    assert fm("job", "run", "--", "x").err == told


def test_every_field_of_a_job_has_an_option():
    named = {path.removeprefix("task/").removeprefix("resources/") for path in OPTION_OF}
    fields = {*JobBody.model_fields, *TaskBody.model_fields, *ResourcesBody.model_fields}
    assert named == fields - {"task", "resources"}


def test_the_defaults_that_the_help_tells_are_the_controllers(bare_fm):
    text = " ".join(bare_fm("job", "run", "--help").out.split())
    told = dict(re.findall(r"--([a-z-]+) [A-Z]+ (?:(?! --)[^()])*\((?:[^()]*; )?default: ([^)]+)\)", text))
    job, task = JobBody(task=TaskBody(command=("x",))), TaskBody(command=("x",))
    assert parse_cpu(told["cpu"]) == task.resources.cpu_milli
    assert parse_memory(told["memory"]) == task.resources.memory_mib
    assert int(told["priority"]) == job.priority and int(told["count"]) == job.count
    assert parse_duration(told["lease"]) == job.lease_ms
    assert parse_duration(told["stop-grace"]) == task.stop_grace_ms


# ---------------------------------------------------------------------- what is shown


def test_show_tells_rules_and_wishes_in_words(api, fm):
    api.on("GET", "/jobs/j-1", RICH)
    assert sorted(fm("job", "show", "j-1").out.splitlines()) == sorted(TOLD.splitlines())


def test_the_list_tells_owners_and_schedules_where_there_are_some(api, fm):
    api.on("GET", "/jobs", {"items": [JOB, RICH], "next": None})
    header, plain, rich = fm("job", "list").out.splitlines()
    assert header.split()[-2:] == ["OWNER", "SCHEDULE"]
    assert rich.endswith("team-a  */5 * * * *") and "team-a" not in plain
    assert rich.split("open")[1].split()[1:2] == ["team-a"]  # no tasks of its own, so no numbers
    api.on("GET", "/jobs", {"items": [{**JOB, "owner": "me"}, {**JOB, "owner": "me"}], "next": None})
    assert "OWNER" not in fm("job", "list").out


def test_a_daemon_is_waited_for_until_it_runs_wherever_it_was_placed(api, fm):
    seen = ({}, {"running": 1, "assigned": 1}, {"running": 1, "pending": 1}, {"running": 2})
    api.on("GET", "/jobs/j-1", *(job("daemon", **counts) for counts in seen))
    assert fm("job", "wait", "j-1").code == 0
    assert len(api.asked) == 4


def test_a_cron_job_has_nothing_to_wait_for(api, fm):
    api.on("GET", "/jobs/j-1", job("cron"))
    ended = fm("job", "wait", "j-1")
    assert ended.code == 1 and "no end" in ended.err and "fm job list" in ended.err


def test_the_page_on_placement_tells_every_word_that_the_controller_knows(bare_fm):
    page = bare_fm("help", "placement").out
    words = page.replace("'", " ").replace(":", " ").replace(",", " ").split()
    prefixes = [word.split(".")[0] + "." for word in words if "." in word]
    assert not set(ATTRIBUTES) - set(words) and not set(PREFIXES) - set(prefixes)
    assert not {*EFFECTS, *POLICIES} - set(words)
    assert [each for each in (*OPERATORS, *GROUP_OPERATORS) if each not in page] == []


def test_what_the_page_shows_as_constraints_is_accepted(bare_fm):
    page = bare_fm("help", "placement").out
    shown = page.split("preference")[0].split("'")[1::2]
    assert len(shown) >= 9
    for text in shown:
        assert fault_of(*parse_constraint(text)) is None, text
