"""The fleet of `fm up`: broker, controller, agents and virtual devices, started and watched.

Order of start: broker, controller, agents and virtual devices, then readiness as the API
tells it. Who dies is treated as its role asks: broker, controller and the process of the
virtual devices are started again; an agent is not, because a killed agent stands for a
device that died, and seeing its work move is what this command is for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import secrets
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fleetmuster.exits import CommandError, Exit
from fleetmuster.up_files import (
    CONTROLLER,
    DEFAULT_HTTP_PORT,
    DEFAULT_MQTT_PORT,
    FLEET,
    Address,
    DataDirectory,
    UpOptions,
)
from fleetmuster.up_processes import Child

if TYPE_CHECKING:
    from broker.contract import Broker

READY_S = 90.0
RESTART_S = 1.0
RESTART_MAX_S = 30.0
BROKER_RETRY_MAX_S = 5.0
POLL_S = 0.1
VIRTUAL_PROFILES = ("pi-4b-4g", "pi-5-8g", "pi-zero-2w")
TASK_USER = "nobody"
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Ready:
    """What a user needs to reach the fleet."""

    http: str
    mqtt: str
    token: str
    data: Path
    broker: str


class UpFleet:
    """Everything that `fm up` started."""

    def __init__(self, options: UpOptions, say: Say) -> None:
        self.options, self.say = options, say
        self.data = DataDirectory(options.data)
        self.token = "fm_" + secrets.token_urlsafe(32)
        self.stopping = asyncio.Event()
        self.agents: list[Child] = []
        self.controller: Child | None = None
        self.virtual: Child | None = None
        self.broker: Broker | None = None
        self._listener: socket.socket | None = None
        self._owner_sockets: tuple[socket.socket, socket.socket] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    # ------------------------------------------------------------- start

    async def start(self) -> Ready | None:
        """Starts everything; None when a signal came before it was ready. Raises `CommandError`."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stopping.set)
        try:
            self.data.open()
            self._listener = self._listen_http()
            await self._start_broker()
            self._start_controller()
            self._start_devices()
            ready = await self._until_ready()
        except BaseException:
            await self.stop()
            raise
        return ready

    def _listen_http(self) -> socket.socket:
        wanted = self.options.http or Address("127.0.0.1", DEFAULT_HTTP_PORT)
        try:
            return _listen(wanted)
        except OSError as error:
            if self.options.http is not None:
                raise CommandError(
                    Exit.FAILED, f"--http {wanted}: {error.strerror}; choose another port"
                ) from error
            self.say(f"port {DEFAULT_HTTP_PORT} is taken; the API gets a free one")
            return _listen(Address("127.0.0.1", 0))

    async def _start_broker(self) -> None:
        from broker.contract import BrokerError, BrokerSetup
        from broker.serve import choose

        users = [CONTROLLER, *self._agent_ids(), *self._virtual_ids()]
        self.data.mint(users)
        address = self._mqtt_address()
        setup = BrokerSetup(self.data.root / "broker", FLEET, dict(self.data.credentials), *address)
        try:
            self.broker = choose(setup, self.options.broker)
            await self.broker.start()
        except BrokerError as error:
            raise CommandError(Exit.FAILED, f"no broker: {error}") from error
        if self.broker.warning:
            self.say(f"note on the broker: {self.broker.warning}")

    def _mqtt_address(self) -> Address:
        """An explicit address as it is (the broker says if it is taken); the default one gives way."""
        if self.options.mqtt is not None:
            _check_free(self.options.mqtt)
            return self.options.mqtt
        default = Address("127.0.0.1", DEFAULT_MQTT_PORT)
        try:
            _listen(default).close()
        except OSError:
            if "://" not in self.options.broker:
                self.say(f"port {DEFAULT_MQTT_PORT} is taken; the broker gets a free one")
            return Address("127.0.0.1", 0)
        return default

    def _start_controller(self) -> None:
        assert self._listener is not None and self.broker is not None
        ours, theirs = socket.socketpair()
        self._owner_sockets = (ours, theirs)
        login = self.broker.login(CONTROLLER, self.data.credentials[CONTROLLER])
        config = self.data.root / "controller" / "controller.toml"
        lines: dict[str, dict[str, object]] = {
            "controller": {
                "fleet": FLEET,
                "data_dir": str(self.data.root / "controller"),
                "policy": self.options.policy,
                "log_level": self.options.log_level,
            },
            "http": {"fd": self._listener.fileno(), "token": self.token},
            "mqtt": {
                "host": _reachable(self.broker.host),
                "port": self.broker.port,
                "username": login.username,
                "password": login.password,
                "tls": self.options.broker.startswith("mqtts://"),
                "advertise": str(Address(_advertised(self.broker.host), self.broker.port)),
                "control_fd": theirs.fileno(),
            },
        }
        self.data.write_secret(config, _toml(lines))
        fds = (self._listener.fileno(), theirs.fileno())
        argv = ["-m", "controller.cli", "run", "--config", str(config)]
        self.controller = Child("controller", argv, self.data.log_path("controller"), fds)
        self.controller.start()
        self._tasks.append(asyncio.create_task(self._own_broker(ours)))

    def _agent_ids(self) -> list[str]:
        return [f"agent-{i}" for i in range(1, self.options.agents + 1)]

    def _virtual_ids(self) -> list[str]:
        return [f"virtual-{i:04d}" for i in range(1, self.options.devices + 1)]

    def _start_devices(self) -> None:
        for device in self._agent_ids():
            config = self.data.agent_directory(device) / "agent.toml"
            self.data.write_secret(config, self._agent_toml(device))
            argv = ["-m", "edge_agent.cli", "run", "--config", str(config)]
            agent = Child(device, argv, self.data.log_path(device))
            agent.start()
            self.agents.append(agent)
        if self.options.devices:
            config = self.data.root / "virtual" / "virtual.json"
            self.data.write_secret(config, self._virtual_json())
            argv = ["-m", "edge_agent.cli", "virtual", "--config", str(config)]
            self.virtual = Child("virtual", argv, self.data.log_path("virtual"))
            self.virtual.start()

    def _agent_toml(self, device: str) -> str:
        assert self.broker is not None
        login = self.broker.login(device, self.data.credentials[device])
        agent: dict[str, object] = {"on_stop": "kill", "log_level": self.options.log_level}
        if os.geteuid() == 0:
            agent["run_uid"] = pwd.getpwnam(TASK_USER).pw_uid
        return _toml(
            {
                "device": {
                    "id": device,
                    "fleet": FLEET,
                    "profile": "generic-linux",
                    "data_dir": str(self.data.agent_directory(device)),
                },
                "mqtt": {
                    "host": _reachable(self.broker.host),
                    "port": self.broker.port,
                    "username": login.username,
                    "password": login.password,
                    "tls": self.options.broker.startswith("mqtts://"),
                },
                "agent": agent,
            }
        )

    def _virtual_json(self) -> str:
        assert self.broker is not None
        devices = []
        for i, device in enumerate(self._virtual_ids()):
            login = self.broker.login(device, self.data.credentials[device])
            profile = VIRTUAL_PROFILES[i % len(VIRTUAL_PROFILES)]
            row = {"id": device, "username": login.username, "password": login.password, "profile": profile}
            devices.append(row | {"labels": {"kind": "virtual"}})
        return json.dumps(
            {
                "fleet": {"name": FLEET, "data_dir": str(self.data.root / "virtual")},
                "mqtt": {"host": _reachable(self.broker.host), "port": self.broker.port},
                "devices": devices,
            }
        )

    # ------------------------------------------------------------- readiness

    async def _until_ready(self) -> Ready | None:
        """Ready: the controller leads and every device of ours is online."""
        assert self._listener is not None and self.broker is not None
        host, port = self._listener.getsockname()[:2]
        http = f"http://{Address(_reachable(host), port)}"
        wanted = set(self._agent_ids()) | set(self._virtual_ids())
        loop = asyncio.get_running_loop()
        until = loop.time() + READY_S
        while not self.stopping.is_set():
            missing = await asyncio.to_thread(_not_online, http, self.token, wanted)
            if missing is not None and not missing:
                url = f"mqtt://{Address(_reachable(self.broker.host), self.broker.port)}"
                return Ready(http, url, self.token, self.data.root, self.broker.kind)
            self._check_alive()
            if loop.time() > until:
                raise CommandError(Exit.TIMEOUT, self._what_is_missing(missing))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), POLL_S)
        return None

    def _check_alive(self) -> None:
        for child in (self.controller, self.virtual, *self.agents):
            if child is not None and not child.running:
                words = child.last_words()
                raise CommandError(
                    Exit.FAILED, f"{child.name} ended at its start: {words} (see {child.log_path})"
                )

    def _what_is_missing(self, missing: set[str] | None) -> str:
        logs = self.data.root / "logs"
        if missing is None:
            return f"the controller's API did not answer within {READY_S:.0f} s (see {logs})"
        some = ", ".join(sorted(missing)[:3])
        return f"{len(missing)} devices are not online after {READY_S:.0f} s, as {some} (see {logs})"

    # ------------------------------------------------------------- watching

    async def watch(self) -> None:
        """Until a signal comes."""
        watchers = [self._keep(child) for child in (self.controller, self.virtual) if child is not None]
        watchers += [self._mourn(agent) for agent in self.agents]
        watchers.append(self._keep_broker())
        self._tasks += [asyncio.create_task(w) for w in watchers]
        await self.stopping.wait()

    async def _keep(self, child: Child) -> None:
        """Starts a child again, with a growing pause while it dies young."""
        loop = asyncio.get_running_loop()
        pause = RESTART_S
        while not self.stopping.is_set():
            began = loop.time()
            assert child.ended is not None
            code = await asyncio.shield(child.ended)
            if self.stopping.is_set():
                return
            pause = RESTART_S if loop.time() - began > RESTART_MAX_S else min(pause * 2, RESTART_MAX_S)
            self.say(f"{child.name} ended ({_exit_words(code)}); starting it again")
            await asyncio.sleep(pause / 2)
            child.start()

    async def _mourn(self, agent: Child) -> None:
        assert agent.ended is not None
        code = await asyncio.shield(agent.ended)
        if not self.stopping.is_set():
            config = self.data.agent_directory(agent.name) / "agent.toml"
            self.say(
                f"{agent.name} ended ({_exit_words(code)}); it stays dead like a device would. "
                f"To bring it back: edge-agent run --config {config}"
            )

    async def _keep_broker(self) -> None:
        assert self.broker is not None
        while not self.stopping.is_set():
            reason = await self.broker.exited()
            if not self.stopping.is_set():
                self.say(f"the broker is gone ({reason})")
                await self._bring_back(self.broker)

    async def _bring_back(self, broker: Broker) -> None:
        """Starts it again, one of somebody else's is only asked for; what hinders is told when it changes."""
        from broker.contract import BrokerError

        pause, told = RESTART_S, ""
        while not self.stopping.is_set():
            await asyncio.sleep(pause)
            try:
                await (broker.start() if broker.kind == "external" else broker.restart())
            except (BrokerError, OSError) as error:
                if str(error) != told:
                    self.say(f"still no broker, trying on: {error}")
                pause, told = min(pause * 2, BROKER_RETRY_MAX_S), str(error)
            else:
                self.say("the broker runs again")
                return

    async def _own_broker(self, sock: socket.socket) -> None:
        """Serves the controller's wishes for credentials (`controller.brokering`)."""
        reader, writer = await asyncio.open_connection(sock=sock)
        while line := await reader.readline():
            writer.write(json.dumps(await self._carry_out(line)).encode() + b"\n")
            await writer.drain()

    async def _carry_out(self, line: bytes) -> dict[str, str]:
        from broker.contract import BrokerError

        assert self.broker is not None
        wish = json.loads(line)
        device = str(wish["device"])
        try:
            if wish["verb"] == "remove":
                self.data.revoke(device)
                await self.broker.remove_users((device,))
                return {}
            self.data.mint([device])
            await self.broker.add_users({device: self.data.credentials[device]})
            return dict(self.broker.login(device, self.data.credentials[device])._asdict())
        except (BrokerError, OSError) as error:
            return {"error": str(error)}

    # ------------------------------------------------------------- end

    async def stop(self) -> None:
        """Ends everything that was started.

        The controller first: it must not take the devices' goodbyes for losses and move their
        work about. Their reports are in their journals, the next start reads them.
        """
        self.stopping.set()
        for task in self._tasks:
            task.cancel()
        if self.controller is not None:
            await self.controller.stop()
        devices = [c for c in (*self.agents, self.virtual) if c is not None]
        await asyncio.gather(*[child.stop() for child in devices])
        if self.broker is not None:
            await self.broker.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for sock in (self._listener, *(self._owner_sockets or ())):
            if sock is not None:
                sock.close()
        self.data.close()


def _listen(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(tuple(address))
        sock.listen(2_048)
    except OSError:
        sock.close()
        raise
    return sock


def _check_free(address: Address) -> None:
    try:
        _listen(address).close()
    except OSError as error:
        raise CommandError(Exit.FAILED, f"--mqtt {address}: {error.strerror}; choose another port") from error


def _reachable(host: str) -> str:
    """How this machine itself reaches a listener on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _advertised(host: str) -> str:
    """How others reach it: this machine's own address where it listens on all of them."""
    if host not in ("0.0.0.0", "::"):
        return host
    family = socket.AF_INET6 if host == "::" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            # A datagram socket's connect sends nothing; it only asks the routing table.
            probe.connect(("2001:db8::1" if host == "::" else "192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _not_online(http: str, token: str, wanted: set[str]) -> set[str] | None:
    """Those of `wanted` that are not online; None while the API does not answer."""
    from fleetmuster.client import RemoteClient

    try:
        with RemoteClient(http, token) as client:
            online = {device["id"] for device in client.devices() if device.get("state") == "online"}
    except CommandError:
        return None
    return wanted - online


def _exit_words(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _toml(sections: dict[str, dict[str, object]]) -> str:
    """TOML of flat sections; JSON's strings, numbers and truth values are TOML's too."""
    lines = []
    for name, rows in sections.items():
        lines.append(f"[{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in rows.items()]
    return "\n".join(lines) + "\n"
