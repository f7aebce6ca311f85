"""`fm controller run`: one controller in the foreground."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

OK, FAILED, USAGE = 0, 1, 2

_EXAMPLES = """examples:
  fm controller run --config controller.toml
  FM_MQTT_PASSWORD=secret fm controller run --set mqtt.host=10.0.0.5 --set http.port=0
  fm controller run --config controller.toml --set controller.policy=binpack
"""


def main(argv: list[str] | None = None) -> int:
    """Exit codes: 0 stopped in good order, 1 failed, 2 wrong usage or settings."""
    parser = argparse.ArgumentParser(
        prog="fm controller", epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser(
        "run", help="run a controller", epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    run.add_argument("--config", type=Path, help="a TOML file")
    run.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="one setting")
    arguments = parser.parse_args(argv)
    return _run(arguments.config, arguments.set)


def _run(config: Path | None, assignments: list[str]) -> int:
    from difflib import get_close_matches

    from controller.config import load_config
    from controller.scheduler.policies import NAMES
    from live.logs import capture_logging, setup_logs
    from live.settings import SettingsError

    flags: dict[str, str | None] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals:
            return _fail(USAGE, f"--set wants SECTION.KEY=VALUE, got {assignment!r}")
        flags[name] = value
    try:
        settings = load_config(config, flags).value
    except SettingsError as error:
        return _fail(USAGE, str(error))
    except OSError as error:
        return _fail(USAGE, f"can't read {config}: {error.strerror}")
    policy = settings.controller.policy
    if policy not in NAMES:
        near = get_close_matches(policy, NAMES, 1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        return _fail(USAGE, f"controller.policy: {policy!r} is none of {', '.join(NAMES)}{meant}")
    setup_logs(level=settings.controller.log_level, as_json=settings.controller.log_json)
    capture_logging()
    return _serve(settings)


def _serve(settings: object) -> int:
    from controller import app
    from controller.config import ControllerSettings
    from controller.store.base import StoreUnusable
    from live.parent import die_with_parent

    die_with_parent()
    assert isinstance(settings, ControllerSettings)
    directory = settings.controller.data_dir
    try:
        app.prepare(directory)
        listener = app.listen(settings.http.host, settings.http.port, settings.http.fd)
    except OSError as error:
        where = directory if error.filename else f"{settings.http.host}:{settings.http.port}"
        return _fail(FAILED, f"can't use {where}: {error.strerror}")
    _use_uvloop()
    try:
        asyncio.run(app.run(settings, listener))
    except StoreUnusable as error:
        return _fail(FAILED, str(error))
    return OK


def _use_uvloop() -> None:
    """Twice the messages per second; where there is no wheel for it, asyncio's own loop serves."""
    try:
        import uvloop
    except ImportError:
        return
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


def _fail(code: int, text: str) -> int:
    print(f"fm controller: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
