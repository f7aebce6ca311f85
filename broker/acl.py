"""Who may read and write which topics of a fleet: the rules once, for every broker.

Rule of this file: a user's role follows from its name alone (`pi-7` is a device,
`_controller-a` a controller, `_observer` an onlooker, anything else nobody), and what is
not granted is denied. `broker.render` writes these rules into mosquitto's file, the
embedded broker and the simulator's model ask `FleetAcl` directly.
Rejected: patterns with the user's name in them (`%u`): a name with a wildcard in it once
opened a whole tree (CVE-2017-7650), and one line per grant can be read by a person.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from broker.events import AclAction
from broker.filters import covers, is_wild, matches
from protocol.errors import LocalMistake
from protocol.topics import CONTROLLER, DOWN, ROOT, UP, build, valid_id

OBSERVER = "_observer"
PROBE = "_probe"
"""May connect and nothing else: how the broker's keeper sees that a broker is ready."""
CONTROLLER_PREFIX = f"{CONTROLLER}-"
REMEMBERED_DECISIONS_MAX = 1_000_000


class Access(StrEnum):
    """What a rule grants; the values are mosquitto's words."""

    READ = "read"
    WRITE = "write"
    READ_WRITE = "readwrite"


class AclRule(NamedTuple):
    """One grant: an access and the filter of what it covers."""

    access: Access
    topic_filter: str


class Role(StrEnum):
    """What kind of user a name stands for."""

    DEVICE = "device"
    CONTROLLER = "controller"
    OBSERVER = "observer"
    PROBE = "probe"


def role_of(user: str) -> Role | None:
    """The role that a user name stands for; None for a name that may not exist."""
    if valid_id(user):
        return Role.DEVICE
    if user.startswith(CONTROLLER_PREFIX) and valid_id(user[len(CONTROLLER_PREFIX) :]):
        return Role.CONTROLLER
    return {OBSERVER: Role.OBSERVER, PROBE: Role.PROBE}.get(user)


def rules_for(fleet: str, user: str) -> tuple[AclRule, ...]:
    """Every grant of one user. Raises `LocalMistake` for a name that has no role."""
    role = role_of(user)
    if role is None or not valid_id(fleet):
        raise LocalMistake(f"no such user or fleet: {user!r} in {fleet!r}")
    if role is Role.DEVICE:
        writes = [AclRule(Access.WRITE, build(fleet, user, channel)) for channel in UP]
        return (*writes, *(AclRule(Access.READ, build(fleet, user, channel)) for channel in DOWN))
    if role is Role.CONTROLLER:
        return _controller_rules(fleet)
    if role is Role.OBSERVER:
        return (AclRule(Access.READ, f"{ROOT}/{fleet}/#"),)
    return ()


def _controller_rules(fleet: str) -> tuple[AclRule, ...]:
    """It writes the up channels too: that is how a removed device's retained messages go."""
    ups = [AclRule(Access.READ_WRITE, build(fleet, "+", channel)) for channel in UP]
    downs = [AclRule(Access.WRITE, build(fleet, "+", channel)) for channel in DOWN]
    return (*ups, *downs, AclRule(Access.READ_WRITE, f"{ROOT}/{fleet}/{CONTROLLER}/#"))


class FleetAcl:
    """The rules as an `AclHook`. Decisions are remembered; they depend on names only.

    Which users exist is asked elsewhere: a device that was never let in asks nothing here.
    """

    __slots__ = ("_decisions", "_fleet", "_granted")

    def __init__(self, fleet: str) -> None:
        self._fleet = fleet
        self._decisions: dict[tuple[str, AclAction, str], bool] = {}
        self._granted: dict[tuple[str, Access], tuple[frozenset[str], tuple[str, ...]]] = {}
        """(User, access) -> what is granted by name, and what by a wildcard."""

    def __call__(self, client: str, username: str, action: AclAction, topic: str) -> bool:
        """Whether it may; never, where the client id is not the user name."""
        if client != username:
            return False
        key = (username, action, topic)
        known = self._decisions.get(key)
        if known is None:
            if len(self._decisions) >= REMEMBERED_DECISIONS_MAX:
                self._decisions.clear()
                self._granted.clear()
            known = self._decisions[key] = self._decide(username, action, topic)
        return known

    def _decide(self, user: str, action: AclAction, topic: str) -> bool:
        wanted = Access.WRITE if action is AclAction.PUBLISH else Access.READ
        granted = self._granted.get((user, wanted))
        if granted is None:
            granted = self._granted[user, wanted] = self._grants(user, wanted)
        named, wild = granted
        fits = covers if action is AclAction.SUBSCRIBE else matches
        return topic in named or any(fits(topic_filter, topic) for topic_filter in wild)

    def _grants(self, user: str, wanted: Access) -> tuple[frozenset[str], tuple[str, ...]]:
        """A name that has no role is granted nothing."""
        if role_of(user) is None:
            return frozenset(), ()
        access = (wanted, Access.READ_WRITE)
        filters = [rule.topic_filter for rule in rules_for(self._fleet, user) if rule.access in access]
        wild = tuple(f for f in filters if is_wild(f))
        return frozenset(f for f in filters if f not in wild), wild
