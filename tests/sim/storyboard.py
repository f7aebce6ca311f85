"""What the directed stories are told with: a small world, and a hand on single messages.

A story is a function of a `Stage`; it returns what broke, as names of invariants: those
that the checkers noted, and those that the story itself looked at. With every rule on it
returns nothing. `Ear` stands at the door of one client: what the network brings is passed,
held or dropped by channel and device, and may be said once more later, also on another
connection, as a broker that keeps and repeats would do it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from controller.store.base import Fenced, StoreError
from controller.store.memory import MemoryStore
from protocol import topics
from protocol.codec import decode, encode
from protocol.limits import hold_ms
from protocol.messages import Message
from protocol.resources import Resources
from protocol.tasks import Guarantee
from sim.database import Storage
from sim.rogue import Rogue
from sim.world import FLEET, ROOM, Wish, World

HOLD = hold_ms(30_000)
EAGER = Guarantee.AT_LEAST_ONE


def always(message: Message) -> object:
    return True


@dataclass
class Letter:
    """One publication as a client receives it."""

    topic: str
    payload: bytes
    retain: bool

    @property
    def device(self) -> str:
        return topics.parse(self.topic).device

    @property
    def message(self) -> Message:
        return decode(topics.parse(self.topic), self.payload)


@dataclass
class Stop:
    """Letters of this channel (and device) do not pass."""

    channel: str
    device: str
    when: Callable[[Message], object]
    times: int
    drop: bool


@dataclass
class Ear:
    """The door of one client, by the place where it stands."""

    heard: list[Letter] = field(default_factory=list)
    """Everything that came to the door, also what did not pass."""
    held: list[Letter] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    holder: Any = None
    connection: int = 0
    """Of the newest connection, and who holds it."""

    def passes(self, letter: Letter) -> bool:
        self.heard.append(letter)
        for stop in self.stops:
            fits = letter.topic.endswith("/" + stop.channel) and stop.device in ("", letter.device)
            if fits and stop.times and stop.when(letter.message):
                stop.times -= 1
                if not stop.drop:
                    self.held.append(letter)
                return False
        return True

    def hold(self, *channels: str, device: str = "", when=always) -> None:
        """From now on these wait until `release` or `say`."""
        self.stops += [Stop(channel, device, when, -1, False) for channel in channels]

    def drop(self, *channels: str, device: str = "", when=always, times: int = -1) -> None:
        self.stops += [Stop(channel, device, when, times, True) for channel in channels]

    def clear(self) -> None:
        """What was held is lost; from now on everything passes."""
        self.stops, self.held = [], []

    def release(self) -> None:
        """What was held comes now, in order; from now on everything passes."""
        held = self.held
        self.clear()
        for letter in held:
            self.say(letter)

    def say(self, letter: Letter) -> None:
        """Delivers a letter, once more or at last, on the present connection."""
        self.holder.on_publication(self.connection, letter.topic, letter.payload, letter.retain)

    def tell(self, device: str, message: Message) -> None:
        """Delivers a message that nobody of the world has sent."""
        topic = topics.build(FLEET, device, message.channel)
        self.say(Letter(topic, encode(message), message.retain))

    def last(self, channel: str, device: str = "", when=always) -> Letter:
        """The newest letter of a channel that came to this door."""
        for letter in reversed(self.heard):
            fits = letter.topic.endswith("/" + channel) and device in ("", letter.device)
            if fits and when(letter.message):
                return letter
        raise AssertionError(f"no {channel} was heard")


class Door:
    """Stands before a client for one connection."""

    def __init__(self, ear: Ear, holder: Any) -> None:
        self.ear, self.holder = ear, holder

    def on_link_up(self, connection: int) -> None:
        self.ear.holder, self.ear.connection = self.holder, connection
        self.holder.on_link_up(connection)

    def on_link_down(self, connection: int, reason: str) -> None:
        self.holder.on_link_down(connection, reason)

    def on_publication(self, connection: int, topic: str, payload: bytes, retain: bool) -> None:
        if self.ear.passes(Letter(topic, payload, retain)):
            self.holder.on_publication(connection, topic, payload, retain)


class Stage:
    """A world, doors, and what broke in it."""

    def __init__(
        self,
        devices: int = 2,
        seed: int = 1,
        rooms: tuple[Resources, ...] = (),
        begin: bool = True,
        controllers: int = 1,
    ) -> None:
        storage = Storage(MemoryStore(), (Fenced, StoreError))
        self.world = World(seed, storage, rooms or (ROOM,) * devices, controllers)
        self.found: set[str] = set()
        self.ears: dict[str, Ear] = {}
        connect = self.world.network.connect

        def through_a_door(client: str, holder: Any, *rest: Any) -> int:
            if isinstance(holder, Rogue):
                return connect(client, holder, *rest)
            place = rest[2] if len(rest) > 2 and rest[2] else client
            return connect(client, Door(self.ear(place), holder), *rest)

        self.world.network.connect = through_a_door  # type: ignore[method-assign]
        if begin:
            self.world.begin()

    def ear(self, place: str = "_controller-c1") -> Ear:
        """The door of a device or a controller."""
        return self.ears.setdefault(place, Ear())

    @property
    def controller_ear(self) -> Ear:
        return self.ear()

    # ------------------------------------------------------------- what is done

    def run_on(self, device: str, wish: Wish | None = None, wait: bool = True) -> str:
        """One task that is placed there, though its constraints would allow any device."""
        world = self.world
        others = [name for name in world.devices if name != device]
        for name in others:
            world.decide(name, "cordon")
        task = f"{world.submit(wish or Wish())}.0"
        world.until(lambda: world.task(task).device == device, 60_000, f"{task} on {device}")
        for name in others:
            world.decide(name, "uncordon")
        if wait:
            world.until(lambda: world.running(task), 60_000, f"{task} runs")
        return task

    def shut_others(self, device: str) -> None:
        for name in self.world.devices:
            if name != device:
                self.world.decide(name, "cordon")

    def beat(self, device: str) -> None:
        """Just after a heartbeat of this device was granted."""
        fleet, world = self.world.core.ledger.fleet, self.world
        row = fleet.index[device]
        before = int(fleet.granted_ms[row])
        world.until(lambda: int(fleet.granted_ms[row]) > before, 60_000, "a grant")
        world.advance(50)

    def restart_controller(self) -> None:
        self.world.controller.kill()
        self.world.controller.start()

    # ------------------------------------------------------------- what is found

    def within(self, ms: int, condition: Callable[[], object], code: str) -> bool:
        """Notes `code` unless the condition comes true within so long."""
        try:
            self.world.until(condition, ms)
        except AssertionError:
            self.found.add(code)
            return False
        return True

    def expect(self, condition: object, code: str) -> None:
        """Notes `code` unless the condition holds now."""
        if not condition:
            self.found.add(code)

    def alive(self, task: str) -> bool:
        return bool(self.world.running(task))

    def starts(self, task: str) -> list[int]:
        """Numbers of the attempts of this task that really started, in order."""
        return [key.attempt for _, _, key in self.world.checkers.start_times if key.task == task]

    def broken(self) -> set[str]:
        """Everything that broke: what the checkers noted, and what the story looked at."""
        checkers = self.world.checkers
        checkers.finish()
        noted = {b.split()[0] if isinstance(b, str) else b.invariant for b in checkers.breaches}
        return self.found | noted
