"""`fm` as a program: start, targets, exits, interruptions, broken pipes."""

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path

import pytest

import fleetmuster
from fleetmuster import cli, contexts
from fleetmuster.exits import MEANINGS, Exit
from fleetmuster.parser import DELEGATED

REPOSITORY = Path(__file__).resolve().parents[2]
NEVER_AT_START = {
    "asyncio",
    "http",
    "http.client",
    "http.server",
    "ssl",
    "email",
    "dataclasses",
    "inspect",
    "logging",
}
NEVER_AT_START |= {
    "importlib.metadata",
    "paho",
    "cbor2",
    "psutil",
    "numpy",
    "fastapi",
    "pydantic",
    "subprocess",
}
MODULES_AT_START_MAX = 120  # about 75 on Python 3.11, most of them argparse's


def program(*words, **more):
    environment = {**os.environ, **more.pop("env", {})}
    return subprocess.Popen(
        [sys.executable, "-m", "fleetmuster", *words],
        cwd=REPOSITORY,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=more.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.mark.parametrize(
    "words", [["--version"], ["help", "exit-codes"], ["job", "run", "--help"], ["context", "list"]]
)
def test_start_imports_little_and_nothing_heavy(clean_home, words):
    script = (
        "import sys\nfrom fleetmuster.cli import main\n"
        f"assert main({words!r}) == 0\nprint('\\n' + ' '.join(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stderr.splitlines()[-1].split())
    assert not loaded & NEVER_AT_START
    assert len(loaded) <= MODULES_AT_START_MAX


def test_the_version_is_that_of_the_distribution(bare_fm):
    declared = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["version"]
    assert bare_fm("--version").out == f"fm {declared}\n" == f"fm {fleetmuster.__version__}\n"


def every_help():
    yield []
    for noun, verbs in {
        "job": "run list show cancel wait",
        "task": "list show output explain",
        "device": "list show add remove cordon uncordon drain ping",
        "fleet": "unfreeze",
        "context": "list use show remove",
    }.items():
        yield [noun]
        yield from ([noun, verb] for verb in verbs.split())


@pytest.mark.parametrize("words", list(every_help()), ids=" ".join)
def test_every_help_has_two_or_three_examples_and_they_parse(bare_fm, words):
    ended = bare_fm(*words, "--help")
    assert (ended.code, ended.err) == (0, "")
    examples = ended.out.split("examples:\n")[1].splitlines()
    assert 2 <= len(examples) <= 3
    assert all(line.startswith("  fm ") for line in examples)
    assert bare_fm("help", *words).out == ended.out or not words


def test_help_pages_answer_and_list_themselves(bare_fm):
    shown = bare_fm("help", "exit-codes").out
    assert all(f"{code.value:>3}  {MEANINGS[code]}" in shown for code in Exit)
    for topic in ("contexts", "environment", "quantities", "output"):
        assert bare_fm("help", topic).code == 0
    assert bare_fm("help", "nonsense").code == 2


@pytest.mark.parametrize(
    "words", [["bogus"], ["job"], ["job", "bogus"], ["fleet", "--bogus"], ["-o", "xml", "fleet"]]
)
def test_wrong_words_say_where_help_is(bare_fm, words):
    ended = bare_fm(*words)
    assert ended.code == 2 and "--help" in ended.err and ended.out == ""


def test_a_command_after_dashes_is_only_for_job_run(bare_fm):
    assert bare_fm("job", "list", "--", "x").code == 2


# ---------------------------------------------------------------------- which controller


def test_without_a_controller_the_person_is_told_how_to_get_one(bare_fm):
    ended = bare_fm("fleet")
    assert ended.code == 3 and "fm up" in ended.err


def test_the_current_context_is_used_without_a_word(api, bare_fm):
    api.on("GET", "/fleet", {})
    contexts.register("demo", api.url, api.token, "/d")
    assert bare_fm("fleet").code == 0
    contexts.register("other", "http://127.0.0.1:1", "t", "")
    assert bare_fm("--context", "demo", "fleet").code == 0
    assert bare_fm("fleet", "--context", "demo").code == 0
    assert bare_fm("fleet", "--context", "none").code == 3


def test_flags_win_over_environment_and_environment_over_contexts(
    api, bare_fm, monkeypatch, free_url, tmp_path
):
    api.on("GET", "/fleet", {})
    contexts.register("stale", free_url, "t", "")
    monkeypatch.setenv("FM_URL", free_url)
    monkeypatch.setenv("FM_TOKEN", "wrong")
    (tmp_path / "token").write_text(api.token + "\n")
    assert bare_fm("fleet", "--url", api.url, "--token-file", str(tmp_path / "token")).code == 0
    assert bare_fm("fleet", "--url", api.url).code == 4
    monkeypatch.setenv("FM_TOKEN", api.token)
    monkeypatch.setenv("FM_URL", api.url)
    assert bare_fm("fleet").code == 0


def test_the_token_of_a_context_never_goes_to_another_url(api, bare_fm, free_url):
    contexts.register("demo", free_url, "precious", "")
    ended = bare_fm("fleet", "--url", api.url)
    assert ended.code == 4 and api.asked == []


def test_a_context_chosen_by_flag_keeps_its_token(api, bare_fm, monkeypatch):
    api.on("GET", "/fleet", {})
    contexts.register("demo", api.url, api.token, "")
    monkeypatch.setenv("FM_TOKEN", "of another fleet")
    monkeypatch.setenv("FM_URL", "http://127.0.0.1:1")
    assert bare_fm("--context", "demo", "fleet").code == 0


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"x" * 9000, b"two\nlines"])
def test_a_token_file_that_holds_no_token_is_a_usage_error(bare_fm, tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    assert bare_fm("fleet", "--url", "http://127.0.0.1:1", "--token-file", str(path)).code == 2


def test_a_stale_context_says_what_why_and_what_next(bare_fm, free_url):
    ended_process = subprocess.Popen([sys.executable, "-c", ""])
    ended_process.wait(60)
    contexts.register("demo", free_url, "t", "/var/fleet", pid=ended_process.pid)
    ended = bare_fm("fleet")
    assert ended.code == 6
    what, why, following = ended.err.splitlines()
    assert free_url in what and "refused" in what
    assert f"pid {ended_process.pid}" in why and "no longer runs" in why
    assert "fm up --data /var/fleet" in following and "fm context list" in following


def test_a_wrong_token_says_where_tokens_come_from(api, fm, monkeypatch):
    monkeypatch.setenv("FM_TOKEN", "old")
    ended = fm("fleet")
    assert ended.code == 4 and "mints a new token" in ended.err


def test_a_slow_controller_is_a_timeout(api, fm, says):
    api.on("GET", "/fleet", says(hang=True))
    ended = fm("fleet", "--request-timeout", "100ms")
    assert ended.code == 7 and "--request-timeout" in ended.err


def test_quiet_keeps_errors_and_verbose_shows_requests(api, fm, says):
    api.on("POST", "/fleet/unfreeze", says({}))
    assert fm("-q", "fleet", "unfreeze").err == ""
    assert "POST /api/v1/fleet/unfreeze -> 200" in fm("fleet", "unfreeze", "-v").err
    assert fm("-q", "job", "show", "nope").err.startswith("fm: ")


# ---------------------------------------------------------------------- dispatch


@pytest.mark.parametrize("name", list(DELEGATED))
def test_up_and_controller_get_their_words_unread(bare_fm, monkeypatch, name):
    got = []

    class Package:
        @staticmethod
        def main(words):
            got.append(words)
            return 5

    monkeypatch.setattr(cli, "import_module", lambda module: Package)
    assert bare_fm(name, "--help", "--", "-o", "x").code == 5
    assert got == [["--help", "--", "-o", "x"]]
    assert bare_fm("-v", name).code == 2


@pytest.mark.parametrize("missing", ["fastapi", "numpy.linalg"])
def test_a_missing_extra_is_named(bare_fm, monkeypatch, missing):
    def absent(module):
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(cli, "import_module", absent)
    ended = bare_fm("up")
    assert ended.code == 1 and missing in ended.err and "pip install 'fleetmuster[all]'" in ended.err


def test_a_bug_in_our_own_imports_is_not_called_a_missing_extra(bare_fm, monkeypatch):
    def broken(module):
        raise ModuleNotFoundError("No module named 'controller.nothing'", name="controller.nothing")

    monkeypatch.setattr(cli, "import_module", broken)
    with pytest.raises(ModuleNotFoundError):
        bare_fm("up")


# ---------------------------------------------------------------------- ends of the process


def test_ctrl_c_during_a_wait_is_130_and_says_how_to_go_on(api, clean_home, says):
    api.on("POST", "/jobs", says({"id": "j-1"}, 201))
    api.on("GET", "/jobs/j-1", {"id": "j-1", "state": "open"})
    environment = {"FM_URL": api.url, "FM_TOKEN": api.token}
    process = program("job", "run", "--wait", "--", "true", env=environment)
    try:
        assert process.stdout.readline() == "j-1\n"
        assert process.stderr.readline() == "j-1 open\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait(60)
    assert (process.returncode, out) == (130, "")
    assert "fm job wait j-1" in err and "Traceback" not in err


def test_a_reader_that_has_had_enough_is_no_error(api, clean_home):
    items = [{"id": f"j-{number:06}"} for number in range(5000)]
    api.on("GET", "/jobs", {"items": items, "next": None})
    process = program("job", "list", env={"FM_URL": api.url, "FM_TOKEN": api.token})
    with process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_an_error(clean_home):
    with open("/dev/full", "w") as full, program("help", "exit-codes", stdout=full) as process:
        err = process.stderr.read()
    assert process.returncode == 1 and "can't be written" in err and "Traceback" not in err


def test_closed_streams_are_survived(clean_home):
    command = f"{shlex.quote(sys.executable)} -m fleetmuster context list >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=REPOSITORY, timeout=60).returncode == 0


def test_a_terminal_without_the_character_shows_it_escaped(api, clean_home):
    api.on("GET", "/jobs/j-1", {"id": "j-1", "name": "größe日"})
    environment = {"FM_URL": api.url, "FM_TOKEN": api.token, "PYTHONIOENCODING": "ascii"}
    with program("job", "show", "j-1", env=environment) as process:
        out = process.stdout.read()
    assert process.returncode == 0 and "gr\\xf6\\xdfe\\u65e5" in out


def test_a_pipe_gets_whole_ids_and_no_colour(api, clean_home):
    api.on("GET", "/tasks", {"items": [{"id": "t" * 300, "state": "failed"}], "next": None})
    environment = {"FM_URL": api.url, "FM_TOKEN": api.token, "COLUMNS": "40"}
    with program("task", "list", env=environment) as process:
        out = process.stdout.read()
    assert "t" * 300 in out and "\x1b" not in out


def terminal_output(words, environment):
    """What a terminal of 60 columns gets."""
    import fcntl
    import pty
    import struct
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    process = program(*words, env=environment, stdout=follower)
    os.close(follower)
    chunks = []

    def drain():
        try:
            while chunk := os.read(leader, 65536):
                chunks.append(chunk)
        except OSError:
            return

    reader = threading.Thread(target=drain, daemon=True)
    reader.start()
    with process:
        process.wait(60)
    reader.join(60)
    os.close(leader)
    return b"".join(chunks).decode()


def test_a_terminal_gets_colour_and_cut_columns_unless_no_color(api, clean_home):
    task = {"id": "t-1", "job": "j" * 80, "state": "failed", "reason": "r" * 80}
    api.on("GET", "/tasks", {"items": [task], "next": None})
    environment = {"FM_URL": api.url, "FM_TOKEN": api.token, "TERM": "xterm"}
    coloured = terminal_output(["task", "list"], environment)
    assert "\x1b[31mfailed\x1b[0m" in coloured and "…" in coloured
    plain = terminal_output(["task", "list"], {**environment, "NO_COLOR": "1"})
    assert "\x1b" not in plain and max(len(line) for line in plain.splitlines()) <= 60
    parsed = json.loads(terminal_output(["task", "list", "-o", "json"], environment))
    assert parsed == [task]
