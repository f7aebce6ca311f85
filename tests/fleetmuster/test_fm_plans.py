"""`fm plan`: what is sent, what is shown, and the exit code that a script asks for."""

import json

import pytest

ROOM = {
    "devices": 3, "offered": {"cpu_milli": 12_000, "memory_mib": 6_144},
    "free": {"cpu_milli": 4_000, "memory_mib": 1_024}, "largest": {"cpu_milli": 2_000, "memory_mib": 512},
    "utilisation": 0.8333,
}  # fmt: skip
MORE = {**ROOM, "devices": 4, "free": {"cpu_milli": 8_000, "memory_mib": 2_048}, "utilisation": 0.5}
CALM = {
    "breaks": False, "counts": {"moved": 1, "broken": 0, "placed": 0, "waiting": 0},
    "moved": [{"task": "j-1.0", "job": "j-1", "device": "pi-7", "to": "pi-8", "reason": "", "words": ""}],
    "broken": [], "placed": [], "reasons": {}, "before": MORE, "after": ROOM, "more": [], "survival": None,
}  # fmt: skip
BROKEN = {
    **CALM, "breaks": True, "counts": {"moved": 1, "broken": 2},
    "broken": [
        {"task": f"j-2.{i}", "job": "j-2", "device": "pi-7", "to": "", "reason": "memory",
         "words": "waits for room: needs 512 MiB; most free now is 40"}
        for i in range(2)
    ],
    "reasons": {"memory": 2},
}  # fmt: skip


def asked(api, fm, *words, answer=CALM):
    api.on("POST", "/plan", answer)
    ended = fm("plan", *words)
    assert ended.code == (9 if answer["breaks"] else 0), ended.err
    return api.bodies("POST", "/plan")[-1]


def test_a_calm_plan_is_a_page_and_0(api, fm):
    api.on("POST", "/plan", CALM)
    ended = fm("plan", "drain", "pi-7")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        "verdict      nothing breaks\n"
        "tasks        1 moved\n"
        "devices      4 -> 3\n"
        "cpu free     8 (2 on one device) -> 4 (2 on one device)\n"
        "memory free  2 GiB (512 MiB on one device) -> 1 GiB (512 MiB on one device)\n"
        "reserved     50% -> 83%\n"
        "\n"
        "would move:\n"
        "TASK   JOB  DEVICE  TO\n"
        "j-1.0  j-1  pi-7    pi-8\n"
    )


def test_what_breaks_comes_first_and_is_9(api, fm):
    api.on("POST", "/plan", BROKEN)
    ended = fm("plan", "lose", "pi-7")
    assert ended.code == 9
    assert "verdict      2 tasks would find no place (memory 2)\n" in ended.out
    first, second = ended.out.index("would find no place:"), ended.out.index("would move:")
    assert first < second
    assert "j-2.1  j-2  pi-7    memory  waits for room: needs 512 MiB; most free now is 40\n" in ended.out


def test_notes_stand_with_the_numbers(api, fm):
    notes = [
        "hi would make others of lower priority give way on pi-8: lo",
        "j-1 would have other constraints",
    ]
    api.on("POST", "/plan", {**CALM, "notes": notes})
    ended = fm("plan", "drain", "pi-7")
    assert [line for line in ended.out.splitlines() if line.startswith("note ")] == [
        f"note         {note}" for note in notes
    ]


def test_json_is_the_answer_itself_either_way(api, fm):
    api.on("POST", "/plan", BROKEN)
    for words in (
        ("plan", "lose", "pi-7", "--json"),
        ("plan", "lose", "pi-7", "-o", "json"),
        ("-o", "json", "plan", "lose", "pi-7"),
    ):
        ended = fm(*words)
        assert ended.code == 9 and json.loads(ended.out) == BROKEN and ended.err == ""


def test_options_become_changes(api, fm):
    assert asked(api, fm, "drain", "pi-7", "pi-8") == {"changes": [{"drain": ["pi-7", "pi-8"]}]}
    body = asked(api, fm, "lose", "pi-7", "--site", "attic", "--site", "", "--survive", "1")
    changes = [{"lose": {"devices": ["pi-7"]}}, {"lose": {"site": "attic"}}, {"lose": {"site": ""}}]
    assert body == {"changes": changes, "survive": 1}
    assert asked(api, fm, "survive") == {"changes": [], "survive": 1}
    assert asked(api, fm, "survive", "--sites", "2") == {"changes": [], "survive": 2}


def test_added_devices_have_what_was_said(api, fm):
    body = asked(api, fm, "add", "3", "--profile", "pi-5-8g", "--label", "site=attic")
    assert body == {"changes": [{"add": {"count": 3, "profile": "pi-5-8g", "labels": {"site": "attic"}}}]}
    body = asked(
        api, fm, "add", "--cpu", "4", "--memory", "2GiB", "--gpu", "0.5", "--need", "camera=2", "--taint",
        "k:no_place", "--runtime", "python",
    )  # fmt: skip
    capacity = {"cpu_milli": 4_000, "memory_mib": 2_048, "gpu_milli": 500}
    shape = {
        "count": 1, "capacity": capacity, "extras": {"camera": 2}, "runtimes": ["python"],
        "taints": ["k:no_place"],
    }  # fmt: skip
    assert body == {"changes": [{"add": shape}]}


def test_a_job_is_said_as_for_job_run(api, fm):
    words = ("--count", "3", "--cpu", "0.5", "--constraint", "site=a", "--gang", "--name", "web")
    planned = asked(api, fm, "submit", *words, "--", "./serve", "-v")["changes"][0]["submit"]
    api.on("POST", "/jobs", {"id": "j-1"})
    assert fm("job", "run", *words, "--", "./serve", "-v").code == 0
    assert planned == api.bodies("POST", "/jobs")[0]
    assert asked(api, fm, "submit", "--memory", "64")["changes"][0]["submit"]["task"]["command"] == ["true"]


def test_a_job_is_changed_in_what_was_said(api, fm):
    body = asked(
        api, fm, "change", "web", "--count", "5", "--cpu", "0.5", "--need", "camera=2", "--constraint",
        "site=attic", "--constraint", "label.x exists", "--tolerate", "gpu", "--policy", "", "--survive", "1",
    )  # fmt: skip
    constraints = [
        {"attribute": "site", "operator": "=", "value": "attic"},
        {"attribute": "label.x", "operator": "exists", "value": ""},
    ]
    changed = {
        "job": "web", "resources": {"cpu_milli": 500}, "extras": {"camera": 2}, "constraints": constraints,
        "tolerations": ["gpu"], "count": 5, "policy": "",
    }  # fmt: skip
    assert body == {"changes": [{"change": changed}], "survive": 1}
    none = asked(api, fm, "change", "web", "--no-constraints", "--no-tolerations")["changes"][0]["change"]
    assert none == {"job": "web", "constraints": [], "tolerations": []}


def test_room_for_more_and_sites_that_cant_be_lost(api, fm):
    losses = [
        {"sites": ["attic", ""], "devices": 4, "moved": 3, "broken": 2, "utilisation": 0.91},
        {"sites": ["b", "c"], "devices": 2, "moved": 3, "broken": 0, "utilisation": 0.5},
    ]
    survival = {"at_once": 2, "looked_at": 2, "left_out": 7, "breaking": 1, "worst": losses}
    api.on(
        "POST",
        "/plan",
        {**CALM, "breaks": True, "more": [{"job": "web", "copies": 12}], "survival": survival},
    )
    ended = fm("plan", "submit", "--cpu", "1", "--survive", "2")
    assert ended.code == 9 and "room for     12 more of web\n" in ended.out
    assert "verdict      1 of 2 sets of sites can't be lost\n" in ended.out
    assert "attic, (no site)        4      3       2       91%\n" in ended.out
    assert "7 sets of the smallest sites were not looked at" in ended.err


def test_long_lists_are_cut_and_counted(api, fm):
    rows = [{**CALM["moved"][0], "task": f"j-1.{i}"} for i in range(30)]
    api.on("POST", "/plan", {**CALM, "moved": rows, "counts": {"moved": 1_234}})
    ended = fm("plan", "drain", "pi-7")
    assert ended.out.count("pi-8") == 20 and "and 1,214 more: -o json" in ended.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("drain",), "DEVICE"),
        (("lose",), "nothing is lost"),
        (("add", "0", "--profile", "x"), "less than 1"),
        (("add", "--cpu", "1"), "--cpu and --memory"),
        (("add", "--profile", "x", "--label", "attic"), "NAME=VALUE"),
        (("survive", "--sites", "3"), "invalid choice"),
        (("submit", "serve"), "needs -- before 'serve'"),
        (("submit", "--cron", "* * * * *", "--daemon"), "contradict"),
        (("add", "--profile", "x", "--label", "a=1", "--label", "a=2"), "--label names 'a' twice"),
        (("change", "web", "--need", "cam=1", "--need", "cam=2"), "--need names 'cam' twice"),
        (("submit", "--need", "cam", "--need", "cam"), "--need names 'cam' twice"),
        (("change", "web"), "nothing changes"),
        (("change",), "JOB"),
        (("change", "web", "--count", "0"), "less than 1"),
        (("change", "web", "--constraint", "a=b", "--no-constraints"), "contradict"),
        (("drain", "pi-7", "--", "true"), "only fm job run and fm plan submit"),
    ],
)
def test_wrong_words_are_usage_errors(api, fm, words, said):
    ended = fm("plan", *words)
    assert ended.code == 2 and said in ended.err and not api.asked


@pytest.mark.parametrize(
    ("words", "pointer", "option"),
    [
        (("submit", "--cpu", "1"), "/changes/0/submit/task/resources/cpu_milli", "--cpu"),
        (("add", "--profile", "x"), "/changes/0/add/profile", "--profile"),
        (("add", "--cpu", "1", "--memory", "1"), "/changes/0/add/capacity/memory_mib", "--memory"),
        (("add", "--profile", "x", "--taint", "k"), "/changes/0/add/taints/0", "--taint"),
        (("change", "w", "--cpu", "1"), "/changes/0/change/resources/cpu_milli", "--cpu"),
        (("change", "w", "--need", "a=1"), "/changes/0/change/extras/a", "--need"),
        (("change", "w", "--tolerate", "a b"), "/changes/0/change/tolerations/0", "--tolerate"),
        (("change", "w", "--count", "9"), "/changes/0/change/count", "--count"),
    ],
)
def test_a_fault_of_the_controller_names_the_option(api, fm, refusal, words, pointer, option):
    api.on("POST", "/plan", refusal(422, "no", pointer))
    ended = fm("plan", *words)
    assert ended.code == 2 and f"change {option}" in ended.err


@pytest.mark.parametrize(
    ("words", "pointer", "code"),
    [
        (("drain", "pi-7", "nobody"), "/changes/0/drain/1", 3),
        (("lose", "nobody"), "/changes/0/lose/devices/0", 3),
        (("lose", "pi-7", "--site", "nowhere"), "/changes/1/lose/site", 2),
    ],
)
def test_devices_that_are_named_have_to_exist(api, fm, refusal, words, pointer, code):
    what = "no device nobody" if code == 3 else "no device has the site 'nowhere'"
    api.on("POST", "/plan", refusal(422, f"{pointer}: {what}", pointer))
    ended = fm("plan", *words)
    said = what if code == 3 else f"--site: {what}"
    assert (ended.code, ended.err) == (code, f"fm: {said}\n  next: fm device list\n")


def test_a_job_that_is_named_has_to_exist(api, fm, refusal):
    pointer = "/changes/0/change/job"
    api.on("POST", "/plan", refusal(422, f"{pointer}: no open job w", pointer))
    ended = fm("plan", "change", "w", "--count", "2")
    assert (ended.code, ended.err) == (3, "fm: no open job w\n  next: fm job list\n")


def test_explain_shows_what_would_place_it(api, fm):
    remedies = [
        {"kind": "room", "name": "memory_mib", "device": "pi-7", "amount": 40, "cost": 0.08, "devices": 3,
         "words": "40 MiB more free on pi-7"},
        {"kind": "constraint", "name": "label.zone = b", "device": "", "amount": 0, "cost": 0.5,
         "devices": 12, "words": "drop label.zone = b"},
    ]  # fmt: skip
    api.on("GET", "/tasks/t-1/explain", {
        "task": "t-1", "state": "pending", "summary": "waits", "reason": "memory",
        "policy": "balanced: room everywhere", "remedies": remedies,
    })  # fmt: skip
    out = fm("task", "explain", "t-1").out
    assert "policy   balanced: room everywhere\n" in out
    assert "ANY ONE OF THESE WOULD PLACE IT  DEVICES\n" in out
    assert "40 MiB more free on pi-7               3\ndrop label.zone = b                   12\n" in out
