"""One invocation: which controller it means, the client for it, and the console.

Rule: flags before environment before context file, and a context's token goes only to
that context's URL: `--url` elsewhere needs a token of its own. The client is made when
a command first asks for it, so that `fm help` needs no controller.
It knows no command.
"""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING, NamedTuple

from fleetmuster import contexts
from fleetmuster.console import Console
from fleetmuster.exits import CommandError, Exit, usage

if TYPE_CHECKING:
    from fleetmuster.client import RemoteClient

TOKEN_BYTES_MAX = 8192  # a token file is one short line; anything else is the wrong file


class Target(NamedTuple):
    """Where requests go. `saved` is the context that says so, if one does."""

    url: str
    token: str
    saved: contexts.SavedContext | None


class Session:
    """Console and, when asked for, the client."""

    def __init__(self, options: Namespace, console: Console) -> None:
        self.console = console
        self._options = options
        self._target: Target | None = None
        self._client: RemoteClient | None = None

    @property
    def client(self) -> RemoteClient:
        """Raises `CommandError` if no controller is chosen or there is no token for it."""
        if self._client is None:
            from fleetmuster.client import RemoteClient  # http.client is slow to load: only if needed

            self._target = resolve(self._options)
            timeout_ms: int = self._options.request_timeout
            self._client = RemoteClient(
                self._target.url, self._target.token, max(timeout_ms, 1), self.console.detail
            )
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def advise(self, error: CommandError) -> None:
        """Adds why and what next to an unreachable controller, from what its context knows."""
        if error.code is not Exit.UNREACHABLE or error.next_step or self._target is None:
            return
        saved = self._target.saved
        if saved is None:
            error.next_step = "check --url or FM_URL, and that the controller runs there"
            return
        if saved.pid is not None and not _alive(saved.pid):
            error.why = (
                error.why or f"what registered context {saved.name!r} (pid {saved.pid}) no longer runs"
            )
        error.why = error.why or f"context {saved.name!r} may be stale, or the controller is starting"
        start = f"fm up --data {saved.data}" if saved.data else "start it"
        error.next_step = (
            f"{start}, or choose another: fm context list, or drop it: fm context remove {saved.name}"
        )


def resolve(options: Namespace) -> Target:
    """Flags > environment > context file. Raises `CommandError`."""
    flag_token = _read_token(options.token_file) if options.token_file else ""
    token = flag_token or os.environ.get("FM_TOKEN", "").strip()
    url: str = options.url or ("" if options.context else os.environ.get("FM_URL", "").strip())
    if not url:
        saved = contexts.load(options.context)
        # naming a context is a flag: a token lying about in the environment must not win over it
        chosen = flag_token if options.context else token
        return Target(saved.url, chosen or saved.token, saved)
    saved_here = _context_of(url, options.context)
    token = token or (saved_here.token if saved_here else "")
    if not token:
        raise CommandError(
            Exit.AUTH,
            f"no token for {url}",
            "no context has that URL",
            "set FM_TOKEN, or say --token-file FILE",
        )
    return Target(url, token, saved_here)


def _context_of(url: str, name: str | None) -> contexts.SavedContext | None:
    """A context with exactly this URL (the named one, if one is named)."""
    known = contexts.load_all()
    order = [name] if name else [known.current, *sorted(known.contexts)]
    found = [known.contexts[each] for each in order if each in known.contexts]
    return next((saved for saved in found if saved.url.rstrip("/") == url.rstrip("/")), None)


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(TOKEN_BYTES_MAX + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"--token-file {path} can't be read: {error}") from error
    if not text or len(text) > TOKEN_BYTES_MAX:
        raise usage(f"--token-file {path} holds no token")
    return text


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True
