"""Contexts: which controllers this user knows, and with which token.

One JSON file, `$XDG_CONFIG_HOME/fleetmuster/contexts.json` (else `~/.config/...`), mode
0600 in a directory of mode 0700, because it holds tokens. Rule: every change is read,
modify, write under a lock file and ends in an atomic rename, since several `fm up` may
register at once. Without HOME the home of the password database is used; a user who
has none there gets a private directory in /tmp, refused if somebody else owns it.
After `forget` of the current context there is no current one: a fallback to another
could send a command to the wrong fleet.
It knows nothing of HTTP. Rejected: TOML (the standard library can't write it).
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from fleetmuster.exits import CommandError, Exit, usage


class SavedContext(NamedTuple):
    """A controller that this user knows. `data` is its directory if it is on this machine."""

    name: str
    url: str
    token: str
    data: str = ""
    pid: int | None = None


class KnownContexts(NamedTuple):
    """The whole file. `current` is empty when none is chosen."""

    current: str
    contexts: dict[str, SavedContext]


def register(
    name: str, url: str, token: str, data: str, make_current: bool = True, pid: int | None = None
) -> None:
    """Adds or replaces `name`. Raises `CommandError` if the file can't be read or written."""
    if not name or not name.isprintable() or name.startswith("-"):
        raise usage(f"{name!r} is no name for a context")
    saved = SavedContext(name, url, token, data, pid)

    def add(known: KnownContexts) -> KnownContexts:
        current = name if make_current else known.current
        return KnownContexts(current, {**known.contexts, name: saved})

    _change(add)


def load(name: str | None = None) -> SavedContext:
    """The context of that name, or the current one. Raises `CommandError` (not found)."""
    known = load_all()
    wanted = name or known.current
    if wanted in known.contexts:
        return known.contexts[wanted]
    names = ", ".join(sorted(known.contexts))
    if wanted:
        raise _unknown(wanted, names)
    why = "no context is current" if names else "this user has no context yet"
    next_step = f"fm context use NAME ({names})" if names else "fm up, or set FM_URL and FM_TOKEN"
    raise CommandError(Exit.NOT_FOUND, "no controller chosen", why, next_step)


def load_all() -> KnownContexts:
    """Every context; empty when there is no file yet. Raises `CommandError` if it is unreadable."""
    path = contexts_path()
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return KnownContexts("", {})
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from error
    try:
        return _decode(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, str(error)) from error


def use(name: str) -> None:
    """Makes `name` the current context. Raises `CommandError` (not found)."""

    def choose(known: KnownContexts) -> KnownContexts:
        if name not in known.contexts:
            raise _unknown(name, ", ".join(sorted(known.contexts)))
        return known._replace(current=name)

    _change(choose)


def forget(name: str, only_token: str | None = None) -> bool:
    """Removes `name`; whether it was there. With `only_token`, only if it still has that token:
    an `up` that ends late must not remove what its successor registered."""
    found = False

    def remove(known: KnownContexts) -> KnownContexts:
        nonlocal found
        saved = known.contexts.get(name)
        found = saved is not None and only_token in (None, saved.token)
        if not found:
            return known
        rest = {key: value for key, value in known.contexts.items() if key != name}
        return KnownContexts("" if known.current == name else known.current, rest)

    _change(remove)
    return found


def contexts_path() -> Path:
    """Where the file is, or would be."""
    return _config_home() / "fleetmuster" / "contexts.json"


def _config_home() -> Path:
    xdg = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(xdg):  # the XDG specification: relative ones are to be ignored
        return Path(xdg)
    home = os.environ.get("HOME", "")
    if os.path.isabs(home):
        return Path(home) / ".config"
    import pwd

    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        home = ""
    return Path(home) / ".config" if home and os.path.isdir(home) else _private_tmp()


def _private_tmp() -> Path:
    """A directory in /tmp that only this user can have made and read."""
    path = Path("/tmp") / f"fleetmuster-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
    except OSError as error:
        raise CommandError(Exit.FAILED, f"{path} can't be made: {error}", next_step="set HOME") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise CommandError(
            Exit.FAILED,
            f"{path} isn't private to this user",
            "this user has no home, so contexts would go there",
            "set HOME or XDG_CONFIG_HOME",
        )
    return path


def _change(change: Callable[[KnownContexts], KnownContexts]) -> None:
    path = contexts_path()
    try:
        path.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
        with _locked(path.with_suffix(".lock")):
            known = load_all()
            changed = change(known)
            if changed != known:
                _write(path, changed)
    except OSError as error:
        raise CommandError(Exit.FAILED, f"{path} can't be written: {error.strerror}") from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)  # closing gives the lock back


def _write(path: Path, known: KnownContexts) -> None:
    rows = {name: _encode(saved) for name, saved in sorted(known.contexts.items())}
    text = json.dumps({"current": known.current, "contexts": rows}, indent=2) + "\n"
    temporary = path.with_suffix(f".{os.getpid()}.new")
    temporary.unlink(missing_ok=True)  # of a process with our pid that died in here
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _encode(saved: SavedContext) -> dict[str, str | int]:
    row: dict[str, str | int] = {"url": saved.url, "token": saved.token, "data": saved.data}
    return row if saved.pid is None else {**row, "pid": saved.pid}


def _decode(value: object) -> KnownContexts:
    if not isinstance(value, dict) or not isinstance(value.get("contexts", {}), dict):
        raise ValueError("it is not an object with contexts")
    found = {name: _decode_one(name, row) for name, row in value.get("contexts", {}).items()}
    current = value.get("current", "")
    return KnownContexts(current if isinstance(current, str) else "", found)


def _decode_one(name: str, row: object) -> SavedContext:
    if not isinstance(row, dict):
        raise ValueError(f"context {name} is not an object")
    texts = [row.get(key, "") for key in ("url", "token", "data")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"context {name}: url, token and data must be text")
    pid = row.get("pid")
    return SavedContext(name, texts[0], texts[1], texts[2], pid if isinstance(pid, int) else None)


def _unknown(name: str, names: str) -> CommandError:
    next_step = f"fm context list (there are: {names})" if names else "fm up registers one"
    return CommandError(Exit.NOT_FOUND, f"no context {name!r}", next_step=next_step)


def _unreadable(path: Path, reason: str) -> CommandError:
    return CommandError(
        Exit.FAILED, f"{path} can't be read", reason, f"repair it, or move it away: mv {path} {path}.old"
    )
