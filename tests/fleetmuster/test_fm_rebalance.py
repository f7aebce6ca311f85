"""`fm rebalance`: plans as a person reads them, and as a script does."""

import json

import pytest

BALANCE = {"imbalance": 0.4714, "mean_load": 0.3333, "most_load": 1.0, "ratio": 3.0, "response": 100.0}
LEVEL = {"imbalance": 0.0589, "mean_load": 0.3333, "most_load": 0.375, "ratio": 1.125, "response": 1.5333}
MOVE = {
    "task": "j1.0", "source": "pi-1", "target": "pi-2", "state": "waiting", "landed": "", "reason": "",
    "cost": 0.15, "gain": 0.03125, "source_load": 1.0, "target_load": 0.25,
}  # fmt: skip
PLAN = {
    "id": "r7-1", "kind": "rebalance", "state": "proposed", "reason": "", "actor": "ada", "decided_by": "",
    "created": "2026-01-02T03:04:05.000Z", "device": "", "reached": True, "before": BALANCE, "after": LEVEL,
    "counts": {"waiting": 2, "moving": 0, "moved": 0, "skipped": 0, "over": 0},
    "moves": [MOVE, {**MOVE, "task": "j1.12", "target": "pi-3", "cost": 2, "gain": 0.002, "target_load": 0}],
    "homeless": [], "staying": [],
}  # fmt: skip
DRAIN = {
    **PLAN, "id": "d7-2", "kind": "drain", "state": "done", "device": "pi-1", "reason": "",
    "counts": {"waiting": 0, "moving": 0, "moved": 1, "skipped": 0, "over": 1},
    "moves": [
        {**MOVE, "state": "moved", "landed": "pi-3"},
        {**MOVE, "task": "j1.1", "state": "over", "reason": "the task ended, or is to end"},
    ],
    "homeless": ["cam.0"], "staying": ["log.4"],
}  # fmt: skip


def test_a_plan_shows_the_fleet_before_and_after_and_each_move(fm, api):
    api.on("POST", "/rebalances", PLAN)
    ended = fm("rebalance", "plan")
    facts, balance, moves = ended.out.split("\n\n")
    assert facts.splitlines()[0] == "plan   r7-1" and "moves  2 waiting" in facts and "by ada" in facts
    assert balance.splitlines() == [
        "        IMBALANCE  MEAN LOAD  BUSIEST  BUSIEST/MEAN  RESPONSE",
        "before      0.471        33%     100%          3.00    100.00",
        "after       0.059        33%      38%          1.12      1.53",
    ]
    assert moves.splitlines() == [
        "TASK   FROM  LOAD  TO    LOAD  COST    GAIN  STATE    WHY",
        "j1.0   pi-1  100%  pi-2   25%   0.1  0.0312  waiting",
        "j1.12  pi-1  100%  pi-3    0%   2.0  0.0020  waiting",
    ]
    assert ended.err == "it waits for approval: fm rebalance approve r7-1\n" and ended.code == 0
    assert api.bodies("POST", "/rebalances") == [{}]


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["--dry-run"], {"dry_run": True}),
        (["--approve", "--max-moves", "20"], {"approve": True, "moves_max": 20}),
    ],
)
def test_options_are_sent(fm, api, words, body):
    api.on("POST", "/rebalances", {**PLAN, "state": "approved" if "--approve" in words else "proposed"})
    ended = fm("rebalance", "plan", *words)
    assert ended.code == 0 and ended.err == "" and api.bodies("POST", "/rebalances") == [body]


def test_nothing_to_do_is_no_failure(fm, api):
    api.on(
        "POST",
        "/rebalances",
        {**PLAN, "state": "stale", "reason": "nothing to do: why", "moves": [], "counts": {}},
    )
    ended = fm("rebalance", "plan")
    assert ended.code == 0 and ended.err == "nothing to do: why\n"
    assert "state  stale: nothing to do" in ended.out and "TASK" not in ended.out


def test_a_drain_shows_who_has_no_home_and_where_tasks_went(fm, api):
    api.on("GET", "/rebalances/d7-2", DRAIN)
    out = fm("rebalance", "show", "d7-2").out
    assert "kind     drain pi-1\n" in out and "no home  cam.0\n" in out and "stay     log.4\n" in out
    assert out.splitlines()[-2].endswith("moved  went to pi-3")
    assert out.splitlines()[-1].endswith("over   the task ended, or is to end")


ROOM = {**PLAN, "id": "m7-3", "kind": "room", "device": "pi-1", "task": "big.0", "moves": [MOVE]}


def test_a_plan_of_room_says_whom_for_and_where(fm, api):
    api.on("POST", "/rebalances", ROOM)
    ended = fm("rebalance", "plan", "--task", "big.0", "--max-moves", "2")
    assert "kind   room pi-1\n" in ended.out and "for    big.0\n" in ended.out and "j1.0" in ended.out
    assert ended.err == "it waits for approval: fm rebalance approve m7-3\n" and ended.code == 0
    assert api.bodies("POST", "/rebalances") == [{"task": "big.0", "moves_max": 2}]


@pytest.mark.parametrize(
    ("status", "detail", "code"),
    [(409, "no plan of at most 10 moves makes room for big.0; `fm task explain big.0` shows what", 5),
     (404, "no open task big.0", 3)],
)  # fmt: skip
def test_why_there_is_no_plan_of_room_is_told(fm, api, refusal, status, detail, code):
    api.on("POST", "/rebalances", refusal(status, detail))
    ended = fm("rebalance", "plan", "--task", "big.0")
    assert ended.code == code and detail in ended.err and not ended.out


def test_a_task_that_is_no_id_is_blamed_by_its_option(fm, api, refusal):
    answer = refusal(422, "/task: must be at most 64 characters long", pointer="/task")
    api.on("POST", "/rebalances", answer)
    ended = fm("rebalance", "plan", "--task", "x" * 65)
    assert ended.code == 2 and "--task: must be at most 64" in ended.err


def test_the_list(fm, api):
    listed = {"items": [DRAIN, PLAN], "mode": "propose", "waits": "failover is frozen", "now": LEVEL}
    api.on("GET", "/rebalances", listed)
    ended = fm("rebalance", "list")
    assert [line.split()[:5] for line in ended.out.splitlines()[1:]] == [
        ["d7-2", "drain", "pi-1", "done", "2"],
        ["r7-1", "rebalance", "proposed", "2", "0"],
    ]
    assert ended.err == (
        "now: busiest device 38%, mean 33%; proposals wait for approval; nothing begins: failover is frozen\n"
    )
    assert json.loads(fm("rebalance", "list", "--json").out) == listed
    assert json.loads(fm("rebalance", "list", "-o", "json").out) == listed


@pytest.mark.parametrize(("verb", "said"), [("approve", "approved"), ("reject", "rejected")])
def test_decisions(fm, api, verb, said):
    api.on("POST", f"/rebalances/r7-1/{verb}", PLAN)
    ended = fm("rebalance", verb, "r7-1")
    assert ended.code == 0 and ended.out == "" and ended.err.startswith(f"r7-1 {said}")


def test_refusals_have_their_codes(fm, api, refusal):
    api.on("POST", "/rebalances/r7-1/approve", refusal(409, "plan r7-1 is stale; ask for a new one"))
    ended = fm("rebalance", "approve", "r7-1")
    assert ended.code == 5 and "ask for a new one" in ended.err
    assert fm("rebalance", "show", "r9-9").code == 3
    for words in (["plan", "--approve", "--dry-run"], ["plan", "--max-moves", "0"], ["approve"], []):
        assert fm("rebalance", *words).code == 2
