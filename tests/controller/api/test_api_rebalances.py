"""Plans of voluntary moves over HTTP: there and back, every refusal, and the figures of balance."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controller.core import balance_views as bv
from controller.core import events as ev
from controller.core import views as vw

EVEN = bv.BalanceView(0.05, 0.33, 0.375, 1.125, 1.5)
UNEVEN = bv.BalanceView(0.47, 0.33, 1.0, 3.0, 100.0)
MOVE = bv.VoluntaryMoveView("j1.0", "pi-1", "pi-2", "moved", "pi-3", "", 0.5, 0.03, 1.0, 0.25)
PLAN = bv.RebalanceView(
    "r7-1", "rebalance", "proposed", "", "tester", "", 1_790_000_000_123, "", UNEVEN, EVEN,
    {"waiting": 0, "moved": 1}, True, [MOVE], ["cam.0"], ["log.1"],
)  # fmt: skip


@pytest.fixture(autouse=True)
def answers(port):
    port.answers |= {
        ev.RebalanceAsked: PLAN,
        ev.RebalanceDecided: vw.DoneView("r7-1"),
        ev.RebalancesQueried: lambda q: (
            PLAN if q.plan == "r7-1"
            else vw.RefusalView("not_found", f"no plan {q.plan}") if q.plan
            else bv.RebalancesView([PLAN], UNEVEN, "auto", "failover is frozen")
        ),
    }  # fmt: skip


def test_a_plan_is_asked_for_and_waits(api, port):
    answer = api.post("/api/v1/rebalances", json={})
    assert answer.status_code == 201 and answer.headers["Location"] == "/api/v1/rebalances/r7-1"
    said = answer.json()
    assert said["created"] == "2026-09-21T14:13:20.123Z" and said["counts"] == {"waiting": 0, "moved": 1}
    assert said["before"]["ratio"] == 3.0 and said["after"]["most_load"] == 0.375
    assert said["moves"] == [
        {
            "task": "j1.0", "source": "pi-1", "target": "pi-2", "state": "moved", "landed": "pi-3",
            "reason": "", "cost": 0.5, "gain": 0.03, "source_load": 1.0, "target_load": 0.25,
        }
    ]  # fmt: skip
    assert (said["homeless"], said["staying"]) == (["cam.0"], ["log.1"])
    [asked] = port.asked
    assert (asked.actor, asked.dry_run, asked.approve, asked.moves_max) == ("tester", False, False, 0)
    assert asked.task == said["task"] == ""


def test_room_is_asked_for_a_task(api, port):
    room = replace(PLAN, id="m7-2", kind="room", device="pi-1", task="j9.0")
    port.answers[ev.RebalanceAsked] = room
    answer = api.post("/api/v1/rebalances", json={"task": "j9.0", "approve": True})
    assert answer.status_code == 201 and answer.headers["Location"] == "/api/v1/rebalances/m7-2"
    said = answer.json()
    assert (said["kind"], said["device"], said["task"]) == ("room", "pi-1", "j9.0")
    assert (port.asked[-1].task, port.asked[-1].approve) == ("j9.0", True)
    said = api.post("/api/v1/rebalances", json={"task": None}).json()
    assert port.asked[-1].task == "" and said["task"] == "j9.0"
    port.answers[ev.RebalanceAsked] = vw.RefusalView("conflict", "task j9.0 is running on pi-1")
    for body in ({"task": "j9.0"}, {"task": "j9.0", "dry_run": True}):
        answer = api.post("/api/v1/rebalances", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (409, "task j9.0 is running on pi-1")


def test_a_dry_run_makes_nothing(api, port):
    answer = api.post("/api/v1/rebalances", json={"dry_run": True, "moves_max": 20})
    assert answer.status_code == 200 and "Location" not in answer.headers
    assert port.asked[-1].dry_run and port.asked[-1].moves_max == 20


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"dry_run": True, "approve": True}, "/approve", "one of the two"),
        ({"dry_run": 1}, "/dry_run", "must be true or false"),
        ({"moves_max": 0}, "/moves_max", "must be at least 1"),
        ({"moves_max": 100_001}, "/moves_max", "must be at most 100,000"),
        ({"moves": 5}, "/moves", "did you mean 'moves_max'?"),
        ({"task": ""}, "/task", "at least 1"),
        ({"task": "j" * 65}, "/task", "at most 64"),
        ({"task": 5}, "/task", "must be text"),
        ({"task": "j1\0"}, "/task", "NUL"),
        ([], "", "object"),
    ],
)
def test_what_is_wrong_with_a_body_is_pointed_at(api, port, body, pointer, words):
    answer = api.post("/api/v1/rebalances", json=body)
    said = answer.json()
    assert (answer.status_code, said["pointer"]) == (422, pointer) and words in said["detail"]
    assert port.asked == []


def test_the_list_leaves_moves_out(api):
    said = api.get("/api/v1/rebalances").json()
    assert said["mode"] == "auto" and said["waits"] == "failover is frozen" and said["now"]["ratio"] == 3.0
    [item] = said["items"]
    assert item["id"] == "r7-1" and not {"moves", "homeless", "staying"} & set(item)
    assert api.get("/api/v1/rebalances", params={"limit": 3}).status_code == 200


@pytest.mark.parametrize(("verb", "approve"), [("approve", True), ("reject", False)])
def test_decisions_reach_the_core_with_who_took_them(api, port, verb, approve):
    for sent in ({"json": {}}, {}):
        answer = api.post(f"/api/v1/rebalances/r7-1/{verb}", **sent)
        assert answer.status_code == 200 and answer.json()["id"] == "r7-1"
        decided = port.asked[-2]
        assert (decided.plan, decided.approve, decided.actor) == ("r7-1", approve, "tester")
    answer = api.post(f"/api/v1/rebalances/r7-1/{verb}", json={"force": True})
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/force")


def test_refusals_keep_their_status(api, port):
    assert api.get("/api/v1/rebalances/r9-9").status_code == 404
    asked = len(port.asked)
    for odd in ("r7_1", "r7-1%20", "x" * 65, "r7-é"):
        assert api.get(f"/api/v1/rebalances/{odd}").status_code == 404
    assert len(port.asked) == asked
    port.answers[ev.RebalanceDecided] = vw.RefusalView("conflict", "plan r7-1 is stale")
    answer = api.post("/api/v1/rebalances/r7-1/approve", json={})
    assert (answer.status_code, answer.json()["detail"]) == (409, "plan r7-1 is stale")
    port.answers[ev.RebalanceAsked] = vw.RefusalView("not_ready", "this controller does not lead")
    assert api.post("/api/v1/rebalances", json={}).status_code == 503
    assert api.put("/api/v1/rebalances", json={}).status_code == 405
    assert api.delete("/api/v1/rebalances/r7-1").status_code == 405


def test_the_figures_of_balance_are_in_the_metrics(api, port):
    view = vw.FleetView({}, {}, 0, *[port_room()] * 3, "", 0, [], {}, {"rebalance_moves": 4}, 7, "main", 1)
    port.answers[ev.FleetQueried] = replace(view, balance={"imbalance": 0.25, "mean_load": 0.5})
    text = api.get("/metrics").text
    assert 'fleetmuster_balance{figure="imbalance"} 0.25' in text
    assert 'fleetmuster_core_total{name="rebalance_moves"} 4' in text


def port_room():
    from protocol.resources import Resources

    return Resources(1, 1)
