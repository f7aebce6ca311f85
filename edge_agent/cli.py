"""The `edge-agent` command: run an agent, run virtual devices, look at a configuration.

Rule of this file: what is wrong with how it was called or configured is one line on stderr
and exit code 2; what is wrong with the machine is one line and 1. Data goes to stdout.
Heavy parts are imported by the command that needs them.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from edge_agent.config import AgentConfig, load_config
from live.settings import Loaded, SettingsError

OK, FAILED, USAGE, NOT_CONNECTED, NOT_RUNNING = 0, 1, 2, 2, 3

EXAMPLES = """examples:
  edge-agent run --config /etc/fleetmuster/agent.toml
  edge-agent run --config agent.toml --set mqtt.host=192.168.1.4 --set agent.log_level=debug
  edge-agent config check --config agent.toml
  edge-agent virtual --config devices.toml
"""


def main(argv: list[str] | None = None) -> int:
    """Entry point of the command; answers its exit code."""
    options = _parser().parse_args(argv)
    try:
        return _COMMANDS[options.command](options)
    except SettingsError as error:
        print(f"edge-agent: {error}", file=sys.stderr)
        return USAGE


def _run(options: argparse.Namespace) -> int:
    loaded = _load(options)
    from edge_agent.app import run_agent

    return run_agent(loaded.value)


def _virtual(options: argparse.Namespace) -> int:
    from edge_agent.virtual import run_virtual

    return run_virtual(Path(options.config))


def _config_check(options: argparse.Namespace) -> int:
    _load(options)
    print("the configuration is in order")
    return OK


def _config_show(options: argparse.Namespace) -> int:
    for row in _load(options).rows():
        unit = f" {row.unit}" if row.unit else ""
        print(f"{row.name} = {row.value}{unit}\t# {row.origin}; {row.reason}")
    return OK


def _config(options: argparse.Namespace) -> int:
    return _config_check(options) if options.action == "check" else _config_show(options)


def _status(options: argparse.Namespace) -> int:
    """Whether an agent runs on this data directory."""
    data_dir = _load(options).value.device.data_dir
    from edge_agent.app import PID_FILE

    try:
        pid = int((data_dir / PID_FILE).read_text().split()[0])
        os.kill(pid, 0)
    except PermissionError:
        pass
    except (OSError, ValueError, IndexError):
        print(f"no agent runs on {data_dir}")
        return NOT_RUNNING
    print(f"an agent runs on {data_dir}, pid {pid}")
    return OK


_COMMANDS = {"run": _run, "virtual": _virtual, "config": _config, "status": _status}


def _load(options: argparse.Namespace) -> Loaded[AgentConfig]:
    flags: dict[str, str | None] = {}
    for pair in options.set:
        name, equals, text = pair.partition("=")
        if not equals:
            raise SettingsError(f"flag --set: must be SECTION.KEY=VALUE, not {pair!r}")
        flags[name.strip()] = text
    return load_config(Path(options.config) if options.config else None, flags)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="edge-agent",
        description="The agent of one fleet device.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, about in (
        ("run", "run this device's agent until it is stopped"),
        ("config", "check or show the configuration"),
        ("status", "tell whether an agent runs here"),
    ):
        command = commands.add_parser(name, help=about, description=about)
        if name == "config":
            command.add_argument("action", choices=("check", "show"))
        command.add_argument("--config", metavar="FILE", help="a TOML file; so is conf.d/*.toml beside it")
        command.add_argument("--set", metavar="SECTION.KEY=VALUE", action="append", default=[])
    about = "run many virtual devices, each with a connection of its own"
    virtual = commands.add_parser("virtual", help=about, description=about)
    virtual.add_argument("--config", metavar="FILE", required=True, help="a TOML or JSON file")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
