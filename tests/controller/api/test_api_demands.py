"""What jobs may say beyond amounts: kinds, rules, wishes; round trips, and faults with their pointers."""

from __future__ import annotations

from contextlib import closing

import pytest

from controller.core import events as ev
from controller.core import views as vw
from controller.core.records import Affinity, Constraint, Dependency, JobRules, Spread
from controller.scheduler.policies import NAMES
from controller.store.sqlite import SqliteStore
from protocol.resources import Resources
from protocol.tasks import JobKind

RULES = {
    "policy": "binpack",
    "owner": "team-a@site",
    "parallel_max": 3,
    "depends_on": ["j1", {"job": "j2", "until": "ended"}],
    "on_return": "longest_running",
    "guarantee": "at_least_one",
}
TASK = {
    "command": ["./infer"],
    "resources": {
        "cpu_milli": 1, "memory_mib": 2, "disk_mib": 3, "gpu_milli": 500,
        "up_kbit_s": 2_000, "down_kbit_s": 10_000, "slots": 2,
    },
    "accelerator_models": ["G2", "T4"],
    "extras": {"serial": 1, "camera": 2},
    "reference_cpu": True,
    "constraints": [
        {"attribute": "label.old", "operator": "not_exists"},
        {"attribute": "profile", "operator": "regex", "value": "^pi-[45]"},
        {"attribute": "version", "operator": "semver", "value": ">=1.2"},
        {"attribute": "capacity.memory_mib", "operator": ">=", "value": "2048"},
        {"attribute": "accelerator", "operator": "in", "value": ["G2", "T4"]},
        {"operator": "distinct_device"},
        {"attribute": "label.rack", "operator": "distinct", "value": "2"},
    ],
    "affinities": [
        {"attribute": "label.zone", "operator": "=", "value": "a", "weight": -100},
        {"attribute": "site", "operator": "in", "value": ["x", "y"]},
    ],
    "spreads": [
        {"attribute": "site"},
        {"attribute": "label.zone", "weight": 80, "targets": {"a": 70, "b": 30}},
    ],
    "tolerations": ["gpu=shared:no_place", "old", "*:prefer_not"],
}  # fmt: skip


def job(**changes):
    task = {"command": ["x"], **changes.pop("task", {})}
    return {"task": task, **changes}


def submitted(api, port, body):
    answer = api.post("/api/v1/jobs", json=body)
    assert answer.status_code == 201, answer.text
    return port.asked[-1]


def refused(api, body):
    answer = api.post("/api/v1/jobs", json=body)
    assert answer.status_code == 422, answer.text
    return {fault["pointer"]: fault["detail"] for fault in answer.json().get("errors") or [answer.json()]}


# ------------------------------------------------------------------------- what is accepted


def test_every_demand_and_wish_reaches_the_core(api, port):
    asked = submitted(api, port, {**RULES, "count": 10, "task": TASK})
    spec = asked.spec
    assert spec.resources == Resources(1, 2, 3, 500, 2_000, 10_000, 2)
    assert (spec.models, spec.extras, spec.reference_cpu) == (("G2", "T4"), {"camera": 2, "serial": 1}, True)
    assert spec.constraints == (
        Constraint("label.old", "not_exists", ""),
        Constraint("profile", "regex", "^pi-[45]"),
        Constraint("version", "semver", ">=1.2"),
        Constraint("capacity.memory_mib", ">=", "2048"),
        Constraint("accelerator", "in", "G2,T4"),
        Constraint("", "distinct_device", ""),
        Constraint("label.rack", "distinct", "2"),
    )
    assert spec.affinities == (Affinity("label.zone", "=", "a", -100), Affinity("site", "in", "x,y", 50))
    assert spec.spreads == (Spread("site", 50, ()), Spread("label.zone", 80, (("a", 70), ("b", 30))))
    assert spec.tolerations == ("gpu=shared:no_place", "old", "*:prefer_not")
    assert asked.rules == JobRules(
        policy="binpack",
        owner="team-a@site",
        parallel_max=3,
        depends_on=(Dependency("j1"), Dependency("j2", "ended")),
        on_return="longest_running",
    )


@pytest.mark.parametrize(
    "body",
    [
        {**RULES, "count": 10, "task": TASK},
        job(
            kind="cron", schedule="*/5 * * * 1-5", zone="Europe/Berlin", overlap=True, missed="once", count=2
        ),
        job(kind="daemon", priority=90),
        job(kind="service", gang=True, count=4),
        job(
            gang=True,
            count=4,
            task={
                "constraints": [
                    {"attribute": "label.zone", "operator": "distinct", "value": "2"},
                    {"attribute": "label.zone", "operator": "in", "value": "a,b"},
                ]
            },
        ),
        job(),
    ],
)
def test_every_field_survives_the_api_and_the_store(api, port, tmp_path, body):
    posted = api.post("/api/v1/jobs", json=body)
    assert posted.status_code == 201, posted.text
    shown = api.get(posted.headers["location"]).json()
    assert posted.json() == shown
    with closing(SqliteStore(tmp_path / "fleet.db")) as store:
        store.open()
        leader, _ = store.lead("c", 0, 1)
        row = port.store.job(shown["id"]).row
        store.save([row], leader.epoch)
        port.store = store
        assert store.job(shown["id"]).row == row
    for field, said in body.items():
        if field not in ("task", "depends_on"):
            assert shown[field] == said, field


def test_a_job_is_shown_with_what_it_demands_and_wishes(api):
    shown = api.post("/api/v1/jobs", json={**RULES, "count": 10, "task": TASK}).json()
    task = shown["task"]
    assert shown["depends_on"] == [{"job": "j1", "until": "succeeded"}, {"job": "j2", "until": "ended"}]
    assert (shown["policy"], shown["owner"], shown["parallel_max"]) == ("binpack", "team-a@site", 3)
    assert task["resources"] == TASK["resources"]
    assert task["affinities"][1] == {"attribute": "site", "operator": "in", "value": "x,y", "weight": 50}
    assert task["spreads"][1] == TASK["spreads"][1]
    assert task["constraints"][5] == {"attribute": "", "operator": "distinct_device", "value": ""}
    for field in ("accelerator_models", "extras", "reference_cpu", "tolerations"):
        assert task[field] == TASK[field]


def test_a_job_that_says_nothing_of_it_has_no_rules(api, port):
    assert submitted(api, port, job()).rules == JobRules()
    shown = api.post("/api/v1/jobs", json=job()).json()
    assert (shown["owner"], shown["policy"], shown["on_return"]) == ("tester", "", "newest")


def test_a_daemon_has_as_many_tasks_as_devices_and_tries_for_ever(api, port):
    asked = submitted(api, port, job(kind="daemon"))
    assert (asked.kind, asked.count, asked.max_attempts) == (JobKind.DAEMON, 0, 0)


def test_a_cron_job_has_no_tasks_of_its_own(api, port):
    body = job(kind="cron", schedule="@daily", count=5)
    asked = submitted(api, port, body)
    assert (asked.kind, asked.count, asked.max_attempts) == (JobKind.CRON, 5, 3)
    assert api.post("/api/v1/jobs", json=body).json()["tasks"]["pending"] == 0


@pytest.mark.parametrize("policy", [*NAMES, ""])
def test_every_policy_of_the_scheduler_may_be_named(api, port, policy):
    assert submitted(api, port, job(policy=policy)).rules.policy == policy


@pytest.mark.parametrize("milli", [0, 1, 500, 999, 1_000, 2_000, 16_000])
def test_a_share_of_one_accelerator_or_whole_ones(api, port, milli):
    assert (
        submitted(api, port, job(task={"resources": {"gpu_milli": milli}})).spec.resources.gpu_milli == milli
    )


def test_two_spellings_of_one_job_are_a_replay(api):
    headers = {"Idempotency-Key": "k"}
    said = job(kind="batch", gang=False, depends_on=[], task={"resources": {"cpu_milli": 100}, "spreads": []})
    assert api.post("/api/v1/jobs", json=job(), headers=headers).status_code == 201
    assert api.post("/api/v1/jobs", json=said, headers=headers).status_code == 200
    other = api.post("/api/v1/jobs", json=job(gang=True), headers=headers)
    assert other.json()["type"].endswith(":idempotency_key_reused")


# ------------------------------------------------------------------------- what is refused


def constraint(attribute, operator, value=""):
    return job(task={"constraints": [{"attribute": attribute, "operator": operator, "value": value}]})


def affinity(**changes):
    wish = {"attribute": "label.zone", "operator": "=", "value": "a", **changes}
    return job(task={"affinities": [wish]})


def spread(**changes):
    return job(task={"spreads": [{"attribute": "label.zone", **changes}]})


@pytest.mark.parametrize(
    ("body", "pointer", "told"),
    [
        (job(policy="binpak"), "/policy", "did you mean 'binpack'?"),
        (job(policy="zzz"), "/policy", "balanced, binpack"),
        (job(policy=1), "/policy", "must be text"),
        (job(owner="a b"), "/owner", "must match"),
        (job(kind="deamon"), "/kind", "did you mean 'daemon'?"),
        (job(kind="daemon", count=1), "/count", "leave count out"),
        (job(kind="daemon", gang=True), "/gang", "kind service"),
        (job(kind="daemon", parallel_max=2), "/parallel_max", "task.constraints"),
        (job(gang=True, count=1_001), "/count", "at most 1,000"),
        (job(count=100_001), "/count", "must be at most 100,000"),
        (job(priority=-1), "/priority", "must be at least 0"),
        (job(gang=True, count=5, parallel_max=4), "/parallel_max", "contradicts gang"),
        (job(gang=True, count=3, task={"constraints": [
            {"attribute": "device", "operator": "in", "value": ["a", "b"]}, {"operator": "distinct_device"},
        ]}), "/task/constraints/1", "say count 2, or name more"),
        (job(gang=True, count=4, task={"constraints": [
            {"attribute": "label.zone", "operator": "distinct", "value": "3"},
            {"attribute": "label.zone", "operator": "in", "value": "a,b"},
            {"attribute": "label.zone", "operator": "=", "value": "b"},
        ]}), "/task/constraints/0", "leave 1 value of label.zone; say count 3"),
        (job(gang="yes"), "/gang", "must be true or false"),
        (job(kind="service", count=5, parallel_max=4), "/parallel_max", "say count 4"),
        (job(parallel_max=-1), "/parallel_max", "must be at least"),
        (job(on_return="best_score"), "/on_return", "say guarantee at_least_one"),
        (job(guarantee="at_least_one", on_return="newset"), "/on_return", "did you mean 'newest'?"),
        (job(depends_on=["j1", "j1"]), "/depends_on/1", "leave one out"),
        (job(depends_on=["j1", {"job": "j1", "until": "ended"}]), "/depends_on/1", "j1"),
        (job(depends_on=["J 1"]), "/depends_on/0", "must match"),
        (job(depends_on="j1"), "/depends_on", "must be a list"),
        (job(depends_on=[7]), "/depends_on/0", "object"),
        (job(depends_on=[{"until": "ended"}]), "/depends_on/0/job", "required"),
        (job(depends_on=[{"job": "j1", "until": "end"}]), "/depends_on/0/until", "did you mean 'ended'?"),
        (job(depends_on=[{"jobs": "j1", "job": "j1"}]), "/depends_on/0/jobs", "did you mean 'job'?"),
        (job(depends_on=[f"j{i}" for i in range(33)]), "/depends_on", "32"),
        (job(kind="cron"), "/schedule", "*/5 * * * *"),
        (job(kind="cron", schedule="0 0 30 2 *"), "/schedule", "never"),
        (job(kind="cron", schedule="61 * * * *"), "/schedule", "61"),
        (job(kind="cron", schedule="@dayly"), "/schedule", "@daily"),
        (job(kind="cron", schedule="@daily", zone="Europe/Berlim"), "/zone", "Europe/Berlin"),
        (job(schedule="@daily"), "/schedule", "say kind cron"),
        (job(kind="service", zone="Europe/Berlin"), "/zone", "leave zone out"),
        (job(overlap=True), "/overlap", "kind cron"),
        (job(missed="all"), "/missed", "kind cron"),
        (job(kind="cron", schedule="@daily", missed="al"), "/missed", "did you mean 'all'?"),
        (job(parent="j1"), "/parent", "unknown field"),
        (job(task={"resources": {"cores": 1}}), "/task/resources/cores", "there are cpu_milli, memory_mib"),
        (job(task={"resources": {"gpu_milli": 1_500}}), "/task/resources/gpu_milli", "say 1000 or 2000"),
        (job(task={"resources": {"gpu_milli": 2_001}}), "/task/resources/gpu_milli", "say 2000 or 3000"),
        (job(task={"resources": {"memory_mb": 1}}), "/task/resources/memory_mb", "mean 'memory_mib'?"),
        (job(task={"resources": {"up_kbits": 1}}), "/task/resources/up_kbits", "did you mean 'up_kbit_s'?"),
        (job(task={"resources": {"slots": -1}}), "/task/resources/slots", "must be at least"),
        (job(task={"resources": {"down_kbit_s": 2**41}}), "/task/resources/down_kbit_s", "must be at most"),
        (job(task={"accelerator_models": ["G2"]}), "/task/accelerator_models", "gpu_milli, 1000"),
        (
            job(task={"resources": {"gpu_milli": 1}, "accelerator_models": ["G2", "G2"]}),
            "/task/accelerator_models/1",
            "G2",
        ),
        (job(task={"accelerator_models": [" "]}), "/task/accelerator_models/0", "empty"),
        (job(task={"extras": {"memory_mib": 1}}), "/task/extras/memory_mib", "say task.resources.memory_mib"),
        (job(task={"extras": {"camera": 0}}), "/task/extras/camera", "at least 1"),
        (job(task={"extras": {"camera": True}}), "/task/extras/camera", "must be a whole number, not true"),
        (job(task={"extras": {"": 1}}), "/task/extras/", "word"),
        (job(task={"extras": {f"x{i}": 1 for i in range(33)}}), "/task/extras", "32"),
        (constraint("zone", "=", "a"), "/task/constraints/0/attribute", "did you mean 'label.zone'?"),
        (constraint("memory_mib", ">=", "4"), "/task/constraints/0/attribute", "'capacity.memory_mib'"),
        (constraint("site", "equals", "a"), "/task/constraints/0/operator", "not an operator"),
        (constraint("site", "=~", "a"), "/task/constraints/0/operator", "did you mean 'regex'?"),
        (constraint("site", "regex", "(a"), "/task/constraints/0/value", "pattern"),
        (constraint("version", "semver", "one"), "/task/constraints/0/value", "one"),
        (constraint("label.x", "not_exists", "a"), "/task/constraints/0/value", "takes no value"),
        (constraint("label.x", "regex", ["a"]), "/task/constraints/0/value", "not a list"),
        (constraint("site", "distinct_device"), "/task/constraints/0/attribute", "no attribute"),
        (constraint("", "distinct"), "/task/constraints/0/attribute", "label.zone"),
        (constraint("label.rack", "distinct", "0"), "/task/constraints/0/value", "from 1"),
        (affinity(weight=0), "/task/affinities/0/weight", "not 0"),
        (affinity(weight=101), "/task/affinities/0/weight", "100"),
        (affinity(operator="distinct", value=""), "/task/affinities/0/operator", "spread"),
        (affinity(attribute="zone"), "/task/affinities/0/attribute", "'label.zone'"),
        (affinity(wieght=1), "/task/affinities/0/wieght", "did you mean 'weight'?"),
        (spread(attribute="zone"), "/task/spreads/0/attribute", "'label.zone'"),
        (spread(attribute="runtime"), "/task/spreads/0/attribute", "several values"),
        (spread(weight=0), "/task/spreads/0/weight", "1 to 100"),
        (spread(targets={"a": 70, "b": 31}), "/task/spreads/0/targets", "add up to 101"),
        (spread(targets={"a": 101}), "/task/spreads/0/targets/a", "100"),
        (spread(targets=["a"]), "/task/spreads/0/targets", "object"),
        (job(task={"spreads": [{"attribute": "site"}] * 2}), "/task/spreads/1", "site"),
        (job(task={"spreads": [{"attribute": f"label.{i}"} for i in range(9)]}), "/task/spreads", "8"),
        (job(task={"tolerations": ["gpu:NoSchedule"]}), "/task/tolerations/0", "did you mean 'no_place'?"),
        (job(task={"tolerations": ["old", "a b"]}), "/task/tolerations/1", "is no key"),
        (job(task={"tolerations": ["old", "old"]}), "/task/tolerations/1", "leave one out"),
        (job(task={"reference_cpu": 1}), "/task/reference_cpu", "must be true or false"),
    ],
)  # fmt: skip
def test_a_fault_has_a_pointer_and_says_what_to_write_instead(api, port, body, pointer, told):
    faults = refused(api, body)
    assert list(faults) == [pointer]
    assert told in faults[pointer]
    assert port.asked == []


def test_faults_between_fields_are_told_together(api):
    body = job(kind="daemon", count=2, gang=True, zone="Asia/Tokyo", task={"tolerations": ["a b", ":"]})
    assert list(refused(api, body)) == [
        "/task/tolerations/0", "/task/tolerations/1", "/count", "/gang", "/zone",
    ]  # fmt: skip


def test_what_equals_the_default_may_always_be_said(api, port):
    submitted(api, port, job(zone="UTC", schedule="", overlap=False, missed="skip", on_return="newest"))


def test_a_job_that_the_core_does_not_know_is_pointed_at(api, port):
    port.answers[ev.JobSubmitted] = vw.RefusalView("invalid", "depends on j2, which is no job")
    answer = api.post("/api/v1/jobs", json=job(depends_on=["j", "j1", {"job": "j2"}]))
    assert (answer.status_code, answer.json()["pointer"]) == (422, "/depends_on/2")
    other = api.post("/api/v1/jobs", json=job())
    assert (other.status_code, other.json()["type"]) == (422, "urn:fleetmuster:problem:invalid")
    assert "pointer" not in other.json()


def test_so_many_patterns_that_heartbeats_would_wait_are_not_even_looked_into(api):
    slow = {"attribute": "site", "operator": "regex", "value": "(.{0,100}a){2}"}
    plain = {"attribute": "site", "operator": "regex", "value": "^a|^b"}
    few = {"constraints": [plain] * 3, "affinities": [plain]}
    assert api.post("/api/v1/jobs", json=job(task=few)).status_code == 201
    many = {"constraints": [slow] * 4, "affinities": [plain, slow]}
    faults = refused(api, job(task=many))
    assert list(faults) == ["/task/affinities/0/operator"] and "at most 4" in faults.popitem()[1]


def test_an_entry_with_names_of_accelerators_still_fits_a_document(api):
    command = ["x" * 8_000] * 4 + ["x" * 300]
    assert api.post("/api/v1/jobs", json=job(task={"command": command})).status_code == 201
    many = {"command": command, "resources": {"gpu_milli": 16_000}}
    assert list(refused(api, job(task=many))) == ["/task"]
