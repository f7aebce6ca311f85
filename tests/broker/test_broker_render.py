"""Mosquitto's files, and that they say the same as the rules that other brokers ask."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from broker.acl import FleetAcl, Role, role_of, rules_for
from broker.events import AclAction
from broker.filters import matches
from broker.render import MosquittoPlan, acl_text, password_hash, password_text, write_atomically
from protocol.errors import LocalMistake
from protocol.topics import DOWN, UP, build

USERS = ("pi-1", "pi-2", "_controller-a", "_observer", "_probe")


def granted(text: str, user: str, access: str, topic: str) -> bool:
    """The access file read the way mosquitto reads it."""
    current, found = "", False
    for line in text.splitlines():
        words = line.split(" ", 2)
        if words[0] == "user":
            current = words[1]
        elif words[0] == "topic" and current == user:
            found |= words[1] in (access, "readwrite") and matches(words[2], topic)
    return found


def test_the_file_and_the_hook_grant_the_same() -> None:
    text, hook = acl_text("f", USERS), FleetAcl("f")
    owners = ("pi-1", "pi-2", "pi-3", "_controller")
    topics = [build(fleet, owner, c) for fleet in ("f", "g") for owner in owners for c in (*UP, *DOWN, "x")]
    for user in USERS:
        for topic in (*topics, "x", "fm/1/f", "$SYS/broker/uptime", "fm/1/f/pi-1/runs/x"):
            assert hook(user, user, AclAction.PUBLISH, topic) == granted(text, user, "write", topic)
            assert hook(user, user, AclAction.RECEIVE, topic) == granted(text, user, "read", topic)


def test_a_device_may_exactly_its_own_channels() -> None:
    hook = FleetAcl("f")
    for channel in (*UP, *DOWN):
        mine, other = build("f", "pi-1", channel), build("f", "pi-2", channel)
        assert hook("pi-1", "pi-1", AclAction.PUBLISH, mine) == (channel in UP)
        assert hook("pi-1", "pi-1", AclAction.SUBSCRIBE, mine) == (channel in DOWN)
        assert hook("pi-1", "pi-1", AclAction.RECEIVE, mine) == (channel in DOWN)
        assert not any(hook("pi-1", "pi-1", action, other) for action in AclAction)
    for wide in ("#", "fm/1/f/#", "fm/1/f/pi-1/#", "fm/1/f/+/command", "fm/1/f/pi-1/+"):
        assert not hook("pi-1", "pi-1", AclAction.SUBSCRIBE, wide)


def test_a_client_id_that_is_not_the_user_may_nothing() -> None:
    assert not FleetAcl("f")("pi-2", "pi-1", AclAction.PUBLISH, build("f", "pi-1", "runs"))


@pytest.mark.parametrize(
    ("user", "role"),
    [
        ("pi-1", Role.DEVICE),
        ("_controller-a1", Role.CONTROLLER),
        ("_observer", Role.OBSERVER),
        ("_probe", Role.PROBE),
        ("_controller", None),
        ("_controller-", None),
        ("_other", None),
        ("a b", None),
        ("a\n", None),
        ("%u", None),
        ("", None),
    ],
)
def test_a_name_says_its_role(user: str, role: Role | None) -> None:
    assert role_of(user) is role


@pytest.mark.parametrize("user", ["+", "a:b", "a\ntopic readwrite #", ""])
def test_no_file_is_made_with_a_name_that_could_break_it(user: str) -> None:
    with pytest.raises(LocalMistake):
        acl_text("f", [user])
    with pytest.raises(LocalMistake):
        password_text({user: "x"})
    with pytest.raises(LocalMistake):
        rules_for("f/+", "pi-1")


def test_no_wildcard_stands_in_a_devices_grants() -> None:
    text = acl_text("f", ["pi-1"])
    assert not any(char in text for char in "+#%") and text.startswith("user pi-1\n")


def test_the_hash_is_the_one_that_mosquitto_passwd_makes() -> None:
    made_by_mosquitto_passwd = (
        "$7$101$i6fRrPga8buc9F+p$ycZw1qSYO3Yh34Codf7K0Pt0/jNNhV4ZkwDs9uw1+mXNInlX2PQK7CDSOhJecK8l7cpzintp1D86"
        "HNTCpCMm1Q=="
    )
    assert password_hash("pb", base64.b64decode("i6fRrPga8buc9F+p")) == made_by_mosquitto_passwd
    assert password_hash("pb") != password_hash("pb")


def test_the_configuration_is_closed_unless_granted() -> None:
    lines = MosquittoPlan(Path("/some/where"), "127.0.0.1", 1234).config().splitlines()
    for line in (
        "listener 1234 127.0.0.1",
        "allow_anonymous false",
        "password_file /some/where/passwords",
        "acl_file /some/where/acl",
        "use_username_as_clientid true",
        "set_tcp_nodelay true",
        "persistence true",
    ):
        assert line in lines
    assert sum(line.startswith("listener") for line in lines) == 1
    assert "persistence false" in MosquittoPlan(Path("/x"), persistence=False).config()


@pytest.mark.parametrize("plan", [MosquittoPlan(Path("/a\nlistener 1")), MosquittoPlan(Path("/a"), "h 1")])
def test_a_path_or_host_that_adds_lines_is_refused(plan: MosquittoPlan) -> None:
    with pytest.raises(LocalMistake):
        plan.config()


def test_a_file_is_replaced_whole_private_and_never_through_a_link(tmp_path: Path) -> None:
    target, victim = tmp_path / "passwords", tmp_path / "victim"
    victim.write_text("untouched")
    target.symlink_to(victim)
    write_atomically(target, "new", (os.geteuid(), os.getegid()))
    assert target.read_text() == "new" and not target.is_symlink() and victim.read_text() == "untouched"
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["passwords", "victim"]


def test_a_failed_replacement_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "acl"
    target.mkdir()
    with pytest.raises(OSError):
        write_atomically(target, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["acl"]
