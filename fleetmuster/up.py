"""`fm up`: a whole fleet on this machine with one command.

This file reads the words and says what happened; `up_fleet` starts, watches and ends the
processes, `up_files` knows where things lie. stdout carries data only: with `--json` one
line, and only when the fleet is ready to take work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
from pathlib import Path

from fleetmuster.exits import CommandError, Exit
from fleetmuster.up_files import Address, UpOptions, parse_address
from fleetmuster.up_fleet import Ready, UpFleet

CONTEXT = "up"
_EXAMPLES = """examples:
  fm up
  fm up --agents 5 --devices 200 --data ~/fleet
  fm up --broker mqtt://127.0.0.1:1883 --http 127.0.0.1:0 --json
"""


POLICIES = (
    *("balanced", "binpack", "spread", "fragmentation", "round_robin"),
    *("least_loaded", "weighted", "latency", "adaptive"),
)
"""As in the scheduler, which the base install does not have; a test compares them."""


def main(args: list[str]) -> int:
    """Runs until Ctrl-C or SIGTERM. Exit codes: 0 stopped, 1 could not start, 2 wrong usage."""
    options = _parse(args)
    _check_lan(options)
    return asyncio.run(_run(options))


def _parse(args: list[str]) -> UpOptions:
    parser = argparse.ArgumentParser(
        prog="fm up",
        description="Run a broker, a controller, agents and virtual devices on this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--agents", type=_count, default=3, metavar="N", help="real agents (3)")
    parser.add_argument("--devices", type=_count, default=50, metavar="N", help="virtual devices (50)")
    parser.add_argument("--data", type=Path, default=Path("fm-data"), metavar="DIR", help="./fm-data")
    parser.add_argument("--http", type=_address, metavar="HOST:PORT", help="127.0.0.1:8080; port 0: any")
    parser.add_argument("--mqtt", type=_address, metavar="HOST:PORT", help="127.0.0.1:1883; port 0: any")
    brokers = "auto, mosquitto, amqtt or mqtt://host:port"
    parser.add_argument("--broker", type=_broker, default="auto", metavar="BROKER", help=brokers)
    parser.add_argument("--policy", default="balanced", choices=POLICIES, help="picks devices")
    parser.add_argument("--json", action="store_true", help="one JSON line when ready")
    parser.add_argument("--insecure-lan", action="store_true", help="serve others, without TLS")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    given = parser.parse_args(args)
    return UpOptions(
        given.agents,
        given.devices,
        given.data,
        given.http,
        given.mqtt,
        given.broker,
        given.policy,
        given.json,
        given.insecure_lan,
        given.log_level,
    )


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 20_000:
        raise argparse.ArgumentTypeError(f"expected a whole number up to 20000, got {text!r}")
    return int(text)


def _address(text: str) -> Address:
    try:
        return parse_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _broker(text: str) -> str:
    if text not in ("auto", "mosquitto", "amqtt") and not text.startswith(("mqtt://", "mqtts://")):
        raise argparse.ArgumentTypeError(f"expected auto, mosquitto, amqtt or mqtt://host:port, got {text!r}")
    return text


def _check_lan(options: UpOptions) -> None:
    for what, address in (("--mqtt", options.mqtt), ("--http", options.http)):
        if address is not None and not address.loopback and not options.insecure_lan:
            raise CommandError(
                Exit.USAGE,
                f"{what} {address} is reachable by others, and nothing on it is encrypted",
                "whoever can listen on that network can read passwords, tokens and work",
                "add --insecure-lan if that is acceptable there",
            )


async def _run(options: UpOptions) -> int:
    fleet = UpFleet(options, _say)
    ready = await fleet.start()
    try:
        if ready is not None:
            _register(ready)
            _tell(options, ready)
            await fleet.watch()
    finally:
        if ready is not None:
            _unregister(ready)
        await fleet.stop()
    _say("stopped; nothing is left running")
    return int(Exit.OK)


def _register(ready: Ready) -> None:
    from fleetmuster import contexts

    contexts.register(CONTEXT, ready.http, ready.token, str(ready.data), pid=os.getpid())


def _unregister(ready: Ready) -> None:
    from fleetmuster import contexts

    contexts.forget(CONTEXT, only_token=ready.token)


def _tell(options: UpOptions, ready: Ready) -> None:
    if options.json:
        line = {"http": ready.http, "mqtt": ready.mqtt, "token": ready.token, "data": str(ready.data)}
        print(json.dumps(line), flush=True)
        return
    fm = _own_command()
    print(
        f"The fleet is ready: {options.agents} agents, {options.devices} virtual devices, "
        f"broker {ready.broker}.\n"
        f"  API    {ready.http}/api/v1\n"
        f"  MQTT   {ready.mqtt}\n"
        f"  data   {ready.data}\n"
        f"  logs   {ready.data / 'logs'}\n"
        f"  token  {ready.token}\n"
        "Try in another terminal:\n"
        f"  {fm} job run --name hello --wait -- sh -c 'echo hello from $FM_DEVICE'\n"
        f"  {fm} device list\n"
        f"  {fm} fleet\n"
        "Ctrl-C stops everything.",
        flush=True,
    )


def _own_command() -> str:
    """`fm` if that finds this installation, else its path."""
    ours = Path(sys.executable).parent / "fm"
    found = shutil.which("fm")
    if found and ours.exists() and os.path.samefile(found, ours):
        return "fm"
    return str(ours) if ours.exists() else f"{sys.executable} -m fleetmuster"


def _say(text: str) -> None:
    print(f"fm up: {text}", file=sys.stderr, flush=True)
