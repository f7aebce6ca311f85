"""Plans over HTTP: bodies in the core's words and back, and every fault with its pointer."""

from __future__ import annotations

import pytest

from controller.core import events as ev
from controller.core import plan_views as pv
from controller.core import views as vw
from controller.core.changes import DrainChange, GrowthChange, JobChange, LossChange, SubmitChange
from controller.core.records import Constraint
from protocol.resources import Resources
from protocol.tasks import JobKind

ROOM = pv.RoomView(3, Resources(9_000, 900), Resources(4_000, 400), Resources(2_000, 300), 0.5556)
VIEW = pv.PlanView(
    {"moved": 1, "broken": 1, "placed": 0, "waiting": 2, "stayed": 0, "ended": 0, "left_out": 0},
    ROOM,
    ROOM,
    [pv.PlannedTask("j1.0", "j1", "pi-1", "pi-2")],
    [pv.PlannedTask("j1.1", "j1", "pi-1", "", "memory", "waits for room")],
    reasons={"memory": 1},
    more=[pv.MoreView("new", 7)],
    notes=["j1 would make others of lower priority give way on pi-2: j0"],
    losses=[pv.SiteLossView(("a", "b"), 4, 3, 2, 0.9)],
    losses_looked_at=3,
    losses_breaking=1,
)
JOB = {"name": "web", "count": 3, "task": {"command": ["serve"], "resources": {"memory_mib": 64}}}


def asked(api, port, *changes, **more):
    port.answers[ev.PlanAsked] = VIEW
    answer = api.post("/api/v1/plan", json={"changes": list(changes), **more})
    assert answer.status_code == 200, answer.text
    return port.asked[-1]


def fault(api, *changes, **more):
    answer = api.post("/api/v1/plan", json={"changes": list(changes), **more})
    assert answer.status_code == 422, answer.text
    said = answer.json()
    return said["pointer"], said["detail"]


def test_changes_arrive_in_their_order(api, port):
    question = asked(
        api, port, {"drain": ["pi-1", "pi-2"]}, {"lose": {"devices": ["pi-3"], "site": "a"}},
        {"lose": {"site": ""}}, {"submit": JOB}, {"submit": JOB}, survive=2,
    )  # fmt: skip
    first, second, third, job, again = question.changes
    assert question.survive == 2 and first == DrainChange(("pi-1", "pi-2"))
    assert second == LossChange(("pi-3",), ("a",)) and third == LossChange((), ("",))
    assert isinstance(job, SubmitChange) and (job.job.id, again.job.id) == ("web", "web-2")
    assert (job.job.count, job.job.kind, job.job.spec.resources.memory_mib) == (3, JobKind.BATCH, 64)


def test_a_profile_fills_in_what_was_not_said(api, port):
    growth = asked(api, port, {"add": {"count": 2, "profile": "pi-4b-4g"}}).changes[0]
    assert isinstance(growth, GrowthChange) and growth.count == 2
    assert growth.device.capacity.cpu_milli == 4_000 and growth.device.profile == "pi-4b-4g"
    assert "process" in growth.device.runtimes
    own = {"cpu_milli": 500, "memory_mib": 64}
    shape = {
        "capacity": own, "labels": {"site": "x"}, "runtimes": ["python"], "extras": {"camera": 1},
        "accelerators": [{"name": "g0", "model": "T4"}, {"name": "g1", "milli": 500}],
        "taints": ["k=v:no_place"],
    }  # fmt: skip
    device = asked(api, port, {"add": shape}).changes[0].device
    assert device.capacity == Resources(500, 64, gpu_milli=1_500) and device.labels == {"site": "x"}
    assert device.accelerators == (("g0", "T4", 1_000), ("g1", "", 500)) and device.taints == (
        "k=v:no_place",
    )
    jetson = asked(api, port, {"add": {"profile": "jetson-orin-nano-8g"}}).changes[0].device
    assert sum(milli for _, _, milli in jetson.accelerators) == jetson.capacity.gpu_milli > 0


def test_another_demand_says_only_what_changes(api, port):
    body = {"job": "j1", "resources": {"memory_mib": 9}, "extras": {"camera": 2}}
    assert asked(api, port, {"change": body}).changes == (
        JobChange("j1", (("camera", 2), ("memory_mib", 9))),
    )
    body = {"job": "j1", "constraints": [{"attribute": "site", "operator": "in", "value": ["a", "b"]}]}
    assert asked(api, port, {"change": body}).changes[0].constraints == (Constraint("site", "in", "a,b"),)


def test_count_policy_and_tolerations_can_change_too(api, port):
    body = {"job": "j1", "count": 7, "policy": "binpack", "tolerations": ["gpu"], "constraints": []}
    assert asked(api, port, {"change": body}).changes == (JobChange("j1", (), (), ("gpu",), 7, "binpack"),)
    assert asked(api, port, {"change": {"job": "j1", "policy": ""}}).changes == (JobChange("j1", policy=""),)


def test_the_answer_tells_it_all(api, port):
    port.answers[ev.PlanAsked] = VIEW
    said = api.post("/api/v1/plan", json={"changes": [{"drain": ["pi-1"]}], "survive": 2}).json()
    assert said["breaks"] is True and said["counts"]["waiting"] == 2 and said["reasons"] == {"memory": 1}
    assert said["moved"] == [
        {"task": "j1.0", "job": "j1", "device": "pi-1", "to": "pi-2", "reason": "", "words": ""}
    ]
    assert said["broken"][0]["reason"] == "memory" and said["more"] == [{"job": "new", "copies": 7}]
    assert said["notes"] == VIEW.notes
    assert said["after"]["free"]["memory_mib"] == 400 and said["before"]["utilisation"] == 0.5556
    worst = {"sites": ["a", "b"], "devices": 4, "moved": 3, "broken": 2, "utilisation": 0.9}
    assert said["survival"] == {"at_once": 2, "looked_at": 3, "left_out": 0, "breaking": 1, "worst": [worst]}
    assert api.post("/api/v1/plan", json={"changes": [{"drain": ["a"]}]}).json()["survival"] is None


@pytest.mark.parametrize(
    ("change", "pointer", "words"),
    [
        ({}, "/changes/0", "no change; say exactly one of drain"),
        ({"drain": ["a"], "submit": JOB}, "/changes/0", "drain and submit are 2 changes"),
        ({"drain": []}, "/changes/0/drain", "at least 1"),
        ({"drian": ["a"]}, "/changes/0/drian", "did you mean 'drain'?"),
        ({"drain": ["a b"]}, "/changes/0/drain/0", "must match"),
        ({"lose": {}}, "/changes/0/lose", "say devices or a site"),
        ({"lose": {"site": 3}}, "/changes/0/lose/site", "must be text"),
        ({"add": {"count": 0, "profile": "pi-5-8g"}}, "/changes/0/add/count", "must be at least"),
        ({"add": {"profile": "pi-5-8"}}, "/changes/0/add/profile", "did you mean 'pi-5-8g'?"),
        ({"add": {"profile": "generic-linux"}}, "/changes/0/add/capacity/cpu_milli", "measures it"),
        ({"add": {"capacity": {"cpu_milli": 1}}}, "/changes/0/add/capacity/memory_mib", "say how much"),
        ({"add": {"capacity": {"cpu_milli": -1}}}, "/changes/0/add/capacity/cpu_milli", "must be at least"),
        ({"add": {"profile": "pi-5-8g", "taints": ["k:no"]}}, "/changes/0/add/taints/0", "no_place"),
        ({"submit": {"task": {}}}, "/changes/0/submit/task/command", "needs a command"),
        ({"submit": {"task": {"comand": []}}}, "/changes/0/submit/task/comand", "did you mean 'command'?"),
        ({"submit": JOB | {"policy": "bin"}}, "/changes/0/submit/policy", "not a policy"),
        ({"submit": JOB | {"kind": "daemon"}}, "/changes/0/submit/count", "leave count out"),
        ({"change": {"job": "j1"}}, "/changes/0/change", "nothing changes"),
        ({"change": {"resources": {}}}, "/changes/0/change/job", "required"),
        ({"change": {"job": "j", "count": 0}}, "/changes/0/change/count", "must be at least"),
        ({"change": {"job": "j", "policy": "binpac"}}, "/changes/0/change/policy", "did you mean 'binpack'"),
        ({"change": {"job": "j", "tolerations": ["a b"]}}, "/changes/0/change/tolerations/0", ""),
        (
            {
                "change": {
                    "job": "j",
                    "constraints": [{"attribute": "site", "operator": "regex", "value": "a"}] * 5,
                }
            },
            "/changes/0/change/constraints/4/operator",
            "at most 4",
        ),
        (
            {"change": {"job": "j", "resources": {"gpu_milli": 1_500}}},
            "/changes/0/change/resources/gpu_milli",
            "say 1000 or 2000",
        ),
        (
            {"change": {"job": "j", "constraints": [{"attribute": "zone", "operator": "="}]}},
            "/changes/0/change/constraints/0/attribute",
            "",
        ),
    ],
)
def test_every_fault_has_its_pointer(api, port, change, pointer, words):
    found, detail = fault(api, change)
    assert found == pointer and words in detail, (found, detail)
    assert not port.asked


def test_bounds_of_the_whole(api, port):
    grown = {"add": {"count": 4_000, "profile": "pi-5-8g"}}
    assert fault(api, grown, grown, grown) == (
        "/changes/2/add/count",
        "/changes/2/add/count: a plan adds at most 10,000 devices in all, not 12,000",
    )
    assert fault(api)[0] == "/changes"
    assert fault(api, survive=3)[0] == "/survive"
    assert fault(api, *[{"drain": ["a"]}] * 65)[0] == "/changes"
    assert (
        api.post("/api/v1/plan", content=b"[]", headers={"content-type": "application/json"}).status_code
        == 422
    )


@pytest.mark.parametrize(
    ("change", "field", "pointer"),
    [
        ({"drain": ["a", "b"]}, "devices", "/changes/1/drain/1"),
        ({"lose": {"devices": ["a", "b"]}}, "devices", "/changes/1/lose/devices/1"),
        ({"lose": {"site": "b"}}, "sites", "/changes/1/lose/site"),
        ({"change": {"job": "j", "extras": {"camera": 1}}}, "job", "/changes/1/change/job"),
        ({"submit": JOB}, "job", "/changes/1/submit/name"),
    ],
)
def test_what_the_core_does_not_know_is_pointed_at(api, port, change, field, pointer):
    port.answers[ev.PlanAsked] = pv.PlanFaultView(1, field, 1, "no such thing")
    found, detail = fault(api, {"drain": ["x"]}, change)
    assert found == pointer and "no such thing" in detail


def test_a_refusal_is_one(api, port):
    port.answers[ev.PlanAsked] = vw.RefusalView("busy", "8 plans are worked on already")
    answer = api.post("/api/v1/plan", json={"survive": 1})
    assert answer.status_code == 429 and answer.headers["retry-after"]


def test_explanations_carry_reasons_and_remedies(api, port):
    remedy = vw.RemedyView("room", "memory_mib", "pi-7", 40, 0.08, 3, "40 MiB more free on pi-7")
    port.answers[ev.TaskExplained] = vw.ExplainView(
        "j1.0", "pending", "", "waits", reason="memory", policy="balanced: room", remedies=[remedy]
    )
    api.post("/api/v1/jobs", json=JOB)
    job = api.get("/api/v1/jobs").json()["items"][0]["id"]
    said = api.get(f"/api/v1/tasks/{job}.0/explain").json()
    assert (said["reason"], said["policy"]) == ("memory", "balanced: room")
    assert said["remedies"] == [
        {
            "kind": "room", "name": "memory_mib", "device": "pi-7", "amount": 40, "cost": 0.08, "devices": 3,
            "words": "40 MiB more free on pi-7",
        }
    ]  # fmt: skip


def test_who_waits_for_what_is_a_metric(api, port):
    view = port.answers.setdefault(ev.FleetQueried, None) or _fleet(port)
    view.pending = {"memory": 12, "dependency": 3}
    port.answers[ev.FleetQueried] = view
    text = api.get("/metrics").text
    assert 'fleetmuster_pending{reason="memory"} 12' in text
    assert 'fleetmuster_pending{reason="dependency"} 3' in text


def _fleet(port):
    zero = Resources()
    return vw.FleetView({}, {}, 0, zero, zero, zero, "", 0, [], {}, {}, 1, "main", 5)
