"""Contexts: private, atomic, shared by several processes, never a silent fallback."""

import json
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from fleetmuster import contexts
from fleetmuster.exits import CommandError, Exit

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def home(clean_home):
    return None


def test_a_registered_context_is_current_and_loads_back():
    contexts.register("demo", "http://127.0.0.1:8080", "tok", "/data", pid=42)
    expected = contexts.SavedContext("demo", "http://127.0.0.1:8080", "tok", "/data", 42)
    assert contexts.load() == contexts.load("demo") == expected


def test_the_file_is_private_from_its_first_byte():
    contexts.register("demo", "http://h", "tok", "")
    path = contexts.contexts_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_registering_without_make_current_leaves_the_choice_alone():
    contexts.register("a", "http://a", "1", "")
    contexts.register("b", "http://b", "2", "", make_current=False)
    assert contexts.load().name == "a"


def test_forgetting_the_current_context_chooses_no_other():
    contexts.register("a", "http://a", "1", "")
    contexts.register("b", "http://b", "2", "")
    assert contexts.forget("b")
    with pytest.raises(CommandError) as caught:
        contexts.load()
    assert caught.value.code is Exit.NOT_FOUND
    assert "fm context use NAME (a)" in caught.value.next_step


def test_a_late_predecessor_does_not_forget_its_successor():
    contexts.register("demo", "http://a", "old", "")
    contexts.register("demo", "http://a", "new", "")
    assert not contexts.forget("demo", only_token="old")
    assert contexts.load("demo").token == "new"
    assert contexts.forget("demo", only_token="new")


def test_an_unknown_name_is_not_found_and_names_the_known_ones():
    contexts.register("a", "http://a", "1", "")
    with pytest.raises(CommandError) as caught:
        contexts.load("zz")
    assert caught.value.code is Exit.NOT_FOUND and "a" in caught.value.next_step
    with pytest.raises(CommandError):
        contexts.use("zz")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "\xff", '{"contexts": {"a": 3}}', '{"contexts": {"a": {"url": 3}}}', "[" * 100_000],
)
def test_a_broken_file_is_reported_and_never_overwritten(text):
    path = contexts.contexts_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("latin-1"))
    for call in (contexts.load, lambda: contexts.register("a", "http://a", "1", "")):
        with pytest.raises(CommandError) as caught:
            call()
        assert caught.value.code is Exit.FAILED and str(path) in caught.value.what
    assert path.read_bytes() == text.encode("latin-1")


def test_many_processes_register_at_once_and_none_is_lost():
    program = (
        "import sys; from fleetmuster import contexts; contexts.register(sys.argv[1], 'http://h', 't', '')"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", program, f"c{number}"], cwd=REPOSITORY) for number in range(6)
    ]
    assert [process.wait(60) for process in started] == [0] * 6
    assert sorted(contexts.load_all().contexts) == [f"c{number}" for number in range(6)]


def test_threads_of_one_process_do_not_lose_each_other():
    threads = [
        threading.Thread(target=contexts.register, args=(f"c{number}", "http://h", "t", ""))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(contexts.load_all().contexts) == 8
    left = sorted(path.name for path in contexts.contexts_path().parent.iterdir())
    assert left == ["contexts.json", "contexts.lock"]


def test_xdg_config_home_is_used_only_if_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert contexts.contexts_path() == tmp_path / "fleetmuster" / "contexts.json"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert contexts.contexts_path() == Path(os.environ["HOME"]) / ".config/fleetmuster/contexts.json"


def test_without_home_the_password_database_knows(monkeypatch, tmp_path):
    import pwd

    monkeypatch.delenv("HOME")
    row = list(pwd.getpwuid(os.getuid()))
    row[5] = str(tmp_path)
    monkeypatch.setattr(pwd, "getpwuid", lambda _: pwd.struct_passwd(row))
    assert contexts.contexts_path() == tmp_path / ".config/fleetmuster/contexts.json"


def test_without_any_home_a_private_directory_is_used_and_a_shared_one_refused(monkeypatch, tmp_path):
    import pwd

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(contexts, "Path", lambda text: tmp_path if text == "/tmp" else Path(text))
    private = tmp_path / f"fleetmuster-{os.getuid()}"
    assert contexts.contexts_path() == private / "fleetmuster" / "contexts.json"
    contexts.register("a", "http://a", "1", "")
    assert contexts.load().name == "a"
    private.chmod(0o755)
    with pytest.raises(CommandError, match="private"):
        contexts.contexts_path()


def test_a_context_written_by_hand_without_pid_or_data_loads():
    path = contexts.contexts_path()
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"current": "x", "contexts": {"x": {"url": "http://x", "token": "t"}}}))
    assert contexts.load() == contexts.SavedContext("x", "http://x", "t", "", None)
