"""The openb benchmark: its files, its resampling, and what it says of files that can't be used."""

from __future__ import annotations

import json

import pytest

from benchmarks.openb import main
from benchmarks.openb_files import BadFile, Node, Task, nodes_of, resampled, tasks_of

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\nn1,96000,393216,8,G2\nn2,8000,4096,0,\n"
TASKS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\n"
    "a,4000,8192,1,470,,LS\nb,8000,8192,2,1000,G2|T4,LS\nc,1000,512,0,0,,BE\nd,9000,2048,1,1000,,LS\n"
)


def written(tmp_path, nodes=NODES, tasks=TASKS):
    (tmp_path / "nodes.csv").write_text(nodes)
    (tmp_path / "tasks.csv").write_text(tasks)
    return tmp_path / "nodes.csv", tmp_path / "tasks.csv"


def test_files_are_read_as_they_are_written(tmp_path):
    nodes, tasks = written(tmp_path)
    assert nodes_of(nodes)[:2] == [Node(64_000, 262_144, 2, "P100"), Node(96_000, 393_216, 8, "G2")]
    assert tasks_of(tasks) == [
        Task(4_000, 8_192, 1, 470, ()),
        Task(8_000, 8_192, 2, 1_000, ("G2", "T4")),
        Task(1_000, 512, 0, 0, ()),
        Task(9_000, 2_048, 1, 1_000, ()),
    ]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ("sn,cpu_milli,memory_mib,model\nn,1,1,A\n", "line 1: no column 'gpu'"),
        ("", "line 1: no column 'sn'"),
        (NODES.replace("96000", "many"), "line 3: cpu_milli is 'many'; expected a whole number from 1"),
        (NODES.replace(",8,G2", ",99,G2"), "line 3: gpu is '99'; expected a whole number from 0 to 16"),
        (NODES.replace("P100", ""), "line 2: model is ''; expected the name"),
        (NODES + "n3,1000\n", "line 5: 2 cells; expected 5"),
        ("sn,cpu_milli,memory_mib,gpu,model\nn,1,1,0,\n", "no node has an accelerator"),
    ],
)
def test_a_bad_node_is_told_with_its_line_and_what_was_expected(tmp_path, nodes, said):
    path, _ = written(tmp_path, nodes=nodes)
    with pytest.raises(BadFile, match=r"nodes\.csv") as bad:
        nodes_of(path)
    assert said in str(bad.value)


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        (
            TASKS.replace(",470,", ",1470,"),
            "line 2: gpu_milli is '1470'; expected a whole number from 0 to 1000",
        ),
        (TASKS.replace(",470,", ",0,"), "line 2: gpu_milli is '0'; expected 1 to 1000"),
        (TASKS.replace("c,1000", "c,-5"), "line 4: cpu_milli is '-5'"),
        (TASKS.splitlines()[0] + "\nc,1000,512,0,0,,BE\n", "no task asks for an accelerator"),
    ],
)
def test_a_bad_task_is_told_with_its_line_and_what_was_expected(tmp_path, tasks, said):
    _, path = written(tmp_path, tasks=tasks)
    with pytest.raises(BadFile, match=r"tasks\.csv") as bad:
        tasks_of(path)
    assert said in str(bad.value)


def test_a_file_that_is_not_there_ends_with_2_and_a_sentence(tmp_path, capsys):
    nodes, _ = written(tmp_path)
    assert main(["--nodes", str(nodes), "--tasks", str(tmp_path / "none.csv")]) == 2
    assert "none.csv: can't be read" in capsys.readouterr().err


def test_resampling_reaches_the_target_and_no_task_more_and_depends_on_the_seed(tmp_path):
    tasks = tasks_of(written(tmp_path)[1])
    for target in (1_000, 3_470, 50_000):
        chosen = resampled(tasks, target, 42)
        total = sum(task.total_milli for task in chosen)
        assert target <= total < target + 2_000
        assert chosen == resampled(tasks, target, 42)
    assert resampled(tasks, 50_000, 42) != resampled(tasks, 50_000, 43)


def test_every_policy_is_told_of_with_its_seeds(tmp_path, capsys):
    nodes, tasks = written(tmp_path)
    arguments = ["--nodes", str(nodes), "--tasks", str(tasks), "--seeds", "1-2", "--max-moves", "0.5"]
    assert main([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found) == ["fragmentation", "fragmentation, moves", "best fit", "random"]
    for outcome in found.values():
        assert [seed["seed"] for seed in outcome["seeds"]] == [1, 2]
        assert 0 < outcome["mean_allocated_percent"] <= 100
    assert found["best fit"]["moves"] == found["fragmentation"]["moves"] == 0
    assert main(arguments) == 0
    assert "allocated %" in capsys.readouterr().out
