"""Scenarios: plans as TOML files, for people to write, keep and read again.

Rule of this file: strict. Every key is known, every value has its type and its bounds, every
kind takes exactly its own words, every device is of this plan; what is wrong is told with
file and line, what was expected, and the nearest word that would have been right. A plan
that is written and read again is the same plan.
Rejected: defaults for words of faults and orders (a scenario must say what it does).
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from importlib.resources import files
from re import search

import firmware_profiles
from broker.events import BrokerQuirks
from controller.scheduler.policies import NAMES as POLICIES
from protocol.topics import valid_id
from sim import phrases
from sim.fault_families.kinds import Name, OneOf, Phrase, Whole, Word
from sim.faults import FAMILIES, FAULTS, QUIRKS_FAMILY
from sim.offers import OFFERS
from sim.places import Places
from sim.plan import Args, Fault, Order, Plan, PlannedDevice
from sim.workload import ORDERS

DAY_MS = 86_400_000
RATE = Whole(-500_000, 500_000)
QUIRKS: dict[str, Word] = {
    field.name: Whole(0, DAY_MS if field.name.endswith("_ms") else 1) for field in fields(BrokerQuirks)
}
FOLDER = "scenario_files"
SUFFIX = ".toml"


class ScenarioError(ValueError):
    """A scenario that can't be played: `file`, `line` (1 is the first) and what was expected."""

    def __init__(self, file: str, line: int, problem: str) -> None:
        super().__init__(f"{file}:{line}: {problem}")
        self.file = file
        self.line = line
        self.problem = problem


def built_in() -> dict[str, str]:
    """The scenarios that come with the simulator: name -> text."""
    found = [entry for entry in files("sim").joinpath(FOLDER).iterdir() if entry.name.endswith(SUFFIX)]
    return {
        entry.name.removesuffix(SUFFIX): entry.read_text(encoding="utf-8")
        for entry in sorted(found, key=lambda entry: entry.name)
    }


def read_scenario(text: str, file: str) -> Plan:
    """The plan that `text` describes. Raises `ScenarioError`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ScenarioError(file, _line_of(error, text), f"not TOML: {_reason(error)}") from error
    except RecursionError:
        raise ScenarioError(file, 1, "expected tables and lists that are not as deeply nested") from None
    return _Reader(table, Places(text), file).plan()


def _line_of(error: tomllib.TOMLDecodeError, text: str) -> int:
    found = search(r"at line (\d+)", str(error))
    return int(found[1]) if found else text.count("\n") + 1


def _reason(error: tomllib.TOMLDecodeError) -> str:
    return str(error).partition(" (at ")[0]


# ------------------------------------------------------------- reading

KEYS: dict[str, Word] = {
    "seed": Whole(0, 2**63 - 1),
    "faults_ms": Whole(1, DAY_MS),
    "controllers": Whole(1, 2),
    "balance_ms": Whole(0, DAY_MS),
}
CHOICES: dict[str, OneOf] = {"policy": OneOf(("", *POLICIES)), "offer": OneOf(tuple(OFFERS))}
"""What is decided once for the whole fleet."""
LISTS = ("families", "devices", "orders", "faults", "quirks")
DEVICE: dict[str, Word] = {
    "name": Name("a device"),
    "profile": Name("a profile"),
    "site": Name("a site"),
    "rate_ppm": RATE,
    "containment": OneOf(("strong", "weak")),
    "labels": Phrase(phrases.labels),
    "accelerators": Phrase(phrases.accelerators),
    "extras": Phrase(phrases.amounts),
}
FAULT: dict[str, Word] = {
    "at_ms": Whole(0, DAY_MS), "kind": Name("a kind"), "device": Name("a device"), "for_ms": Whole(0, DAY_MS),
}  # fmt: skip
ORDER: dict[str, Word] = {"at_ms": Whole(0, DAY_MS), "kind": Name("a kind")}
Table = Mapping[str, object]


class _Reader:
    """One scenario on its way to a plan."""

    def __init__(self, table: Table, places: Places, file: str) -> None:
        self.table = table
        self.places = places
        self.file = file
        self.names: tuple[str, ...] = ()

    def wrong(self, where: tuple[str, int, str], problem: str) -> ScenarioError:
        """`where`: the list, the index in it, the key; \"\" and 0 for none."""
        return ScenarioError(self.file, self.places.line(*where), problem)

    def plan(self) -> Plan:
        self._known(("", 0), self.table, (*KEYS, *CHOICES, *LISTS), ("seed", "faults_ms", "devices"))
        numbers = {name: self._whole(("", 0), self.table, name, word) for name, word in KEYS.items()}
        choices = {
            name: str(self._word(("", 0), self.table, name, word))
            for name, word in CHOICES.items()
            if name in self.table
        }
        devices = tuple(self._device(at, item) for at, item in self._items("devices"))
        if not devices:
            raise self.wrong(("", 0, "devices"), "expected at least one device")
        return Plan(
            seed=numbers["seed"],
            faults_ms=numbers["faults_ms"],
            devices=devices,
            controllers=numbers["controllers"] or 1,
            families=self._families(),
            policy=choices.get("policy", ""),
            offer=choices.get("offer", "whole"),
            balance_ms=numbers["balance_ms"],
            quirks=self._quirks(),
            orders=tuple(self._order(at, item) for at, item in self._items("orders")),
            faults=tuple(self._fault(at, item) for at, item in self._items("faults")),
        )

    # ------------------------------------------------------------- the parts

    def _device(self, at: tuple[str, int], item: Table) -> PlannedDevice:
        self._known(at, item, tuple(DEVICE), ("name",))
        words = {name: self._word(at, item, name, word) for name, word in DEVICE.items() if name in item}
        name, profile = str(words["name"]), str(words.setdefault("profile", "generic-linux"))
        if not valid_id(name):
            raise self.wrong((*at, "name"), f"expected letters, digits and hyphens, not {name!r}")
        if name in self.names:
            raise self.wrong((*at, "name"), f"there is a device {name!r} already")
        if profile not in firmware_profiles.names():
            raise self._unknown((*at, "profile"), "profile", profile, firmware_profiles.names())
        self.names += (name,)
        return PlannedDevice(**words)  # type: ignore[arg-type]

    def _fault(self, at: tuple[str, int], item: Table) -> Fault:
        kind = self._kind(at, item, "fault", FAULTS)
        known = FAULTS[kind]
        common = ("at_ms", "kind", "for_ms", *(("device",) if known.of_device else ()))
        must = tuple(name for name in common if name != "for_ms")
        self._known(at, item, (*common, *known.words), (*must, *known.words))
        for_ms = self._whole(at, item, "for_ms", FAULT["for_ms"])
        device = self._of_plan(at, item) if known.of_device else ""
        return Fault(
            self._whole(at, item, "at_ms", FAULT["at_ms"]), kind, device, for_ms,
            self._args(at, item, known.words),
        )  # fmt: skip

    def _order(self, at: tuple[str, int], item: Table) -> Order:
        kind = self._kind(at, item, "order", ORDERS)
        self._known(at, item, ("at_ms", "kind", *ORDERS[kind]), ("at_ms", *ORDERS[kind]))
        if "device" in ORDERS[kind]:
            self._of_plan(at, item)
        return Order(self._whole(at, item, "at_ms", ORDER["at_ms"]), kind, self._args(at, item, ORDERS[kind]))

    def _families(self) -> tuple[str, ...]:
        found = self.table.get("families", [])
        if not isinstance(found, list) or not all(isinstance(family, str) for family in found):
            raise self.wrong(("", 0, "families"), "expected a list of names in quotes")
        for family in found:
            if family not in (*FAMILIES, QUIRKS_FAMILY):
                raise self._unknown(("", 0, "families"), "family", family, (*FAMILIES, QUIRKS_FAMILY))
        return tuple(found)

    def _quirks(self) -> Args:
        found = self.table.get("quirks", {})
        if not isinstance(found, dict):
            raise self.wrong(("", 0, "quirks"), "expected a table: [quirks]")
        at = ("quirks", 0)
        self._known(at, found, tuple(QUIRKS), ())
        return tuple(sorted((name, self._whole(at, found, name, QUIRKS[name])) for name in found))

    # ------------------------------------------------------------- their words

    def _items(self, name: str) -> Iterable[tuple[tuple[str, int], Table]]:
        found = self.table.get(name, [])
        if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
            raise self.wrong(("", 0, name), "expected a list of tables")
        return [((name, index), item) for index, item in enumerate(found)]

    def _known(self, at: tuple[str, int], item: Table, known: tuple[str, ...], must: tuple[str, ...]) -> None:
        for key in item:
            if key not in known:
                raise self._unknown((*at, key), "key", key, known)
        for key in must:
            if key not in item:
                raise self.wrong((*at, ""), f"expected {key!r}, which is missing")

    def _unknown(
        self, where: tuple[str, int, str], what: str, found: str, known: Iterable[str]
    ) -> ScenarioError:
        near = get_close_matches(found, list(known), 1, 0.0)
        listed = ", ".join(sorted(known))
        told = f"; did you mean {near[0]!r}?" if near else ""
        return self.wrong(where, f"unknown {what} {found!r}{told} Expected one of: {listed}")

    def _kind(self, at: tuple[str, int], item: Table, what: str, known: Mapping[str, object]) -> str:
        if "kind" not in item:
            raise self.wrong((*at, ""), "expected 'kind', which is missing")
        kind = str(self._word(at, item, "kind", FAULT["kind"]))
        if kind not in known:
            raise self._unknown((*at, "kind"), f"kind of {what}", kind, known)
        return kind

    def _of_plan(self, at: tuple[str, int], item: Table) -> str:
        name = str(self._word(at, item, "device", FAULT["device"])) if "device" in item else ""
        if name not in self.names:
            raise self._unknown((*at, "device"), "device", name, self.names)
        return name

    def _args(self, at: tuple[str, int], item: Table, words: Mapping[str, Word]) -> Args:
        return tuple(sorted((name, self._word(at, item, name, word)) for name, word in words.items()))

    def _whole(self, at: tuple[str, int], item: Table, name: str, word: Word) -> int:
        return int(self._word(at, item, name, word)) if name in item else 0

    def _word(self, at: tuple[str, int], item: Table, name: str, word: Word) -> int | str:
        value = item[name]
        where = (*at, name)
        if isinstance(word, Whole):
            if isinstance(value, int) and not isinstance(value, bool) and word.low <= value <= word.high:
                return value
            raise self.wrong(
                where, f"{name}: expected a whole number {word.low}…{word.high}, not {_shown(value)}"
            )
        if not isinstance(value, str):
            raise self.wrong(where, f"{name}: expected text in quotes, not {_shown(value)}")
        if isinstance(word, OneOf) and value not in word.words:
            raise self._unknown(where, name, value, word.words)
        if isinstance(word, Phrase):
            try:
                word.read(value)
            except ValueError as problem:
                raise self.wrong(where, f"{name}: {problem}") from None
        return value


def _shown(value: object) -> str:
    return "true or false" if isinstance(value, bool) else repr(value)


# ------------------------------------------------------------- writing


def write_scenario(plan: Plan) -> str:
    """`plan` as a scenario; reading it gives the same plan."""
    lines = [f"seed = {plan.seed}", f"faults_ms = {plan.faults_ms}", f"controllers = {plan.controllers}"]
    if plan.families:
        lines.append(f"families = [{', '.join(_quoted(family) for family in plan.families)}]")
    lines += [f"policy = {_quoted(plan.policy)}"] if plan.policy else []
    lines += [f"offer = {_quoted(plan.offer)}"] if plan.offer != "whole" else []
    lines += [f"balance_ms = {plan.balance_ms}"] if plan.balance_ms else []
    lines += _list("devices", [_device_words(device) for device in plan.devices])
    lines += _list("orders", [(("at_ms", o.at_ms), ("kind", o.kind), *o.args) for o in plan.orders])
    lines += _list("faults", [_fault_words(fault) for fault in plan.faults])
    if plan.quirks:
        lines += ["", "[quirks]", *(f"{name} = {value}" for name, value in plan.quirks)]
    return "\n".join(lines) + "\n"


def _list(name: str, items: list[Args]) -> list[str]:
    if not items:
        return []
    rows = [f"    {{ {', '.join(f'{key} = {_quoted(value)}' for key, value in item)} }}," for item in items]
    return ["", f"{name} = [", *rows, "]"]


def _device_words(device: PlannedDevice) -> Args:
    words: dict[str, int | str] = {"name": device.name, "profile": device.profile}
    if device.site:
        words["site"] = device.site
    if device.rate_ppm:
        words["rate_ppm"] = device.rate_ppm
    if device.containment != "strong":
        words["containment"] = device.containment
    for name in ("labels", "accelerators", "extras"):
        if value := getattr(device, name):
            words[name] = value
    return tuple(words.items())


def _fault_words(fault: Fault) -> Args:
    device: Args = (("device", fault.device),) if fault.device else ()
    lasts: Args = (("for_ms", fault.for_ms),) if fault.for_ms else ()
    return (("at_ms", fault.at_ms), ("kind", fault.kind), *device, *lasts, *fault.args)


def _quoted(value: int | str) -> str:
    """A number, or a basic string of TOML."""
    if isinstance(value, int):
        return str(value)
    plain = value.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in plain) + '"'
