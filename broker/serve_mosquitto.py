"""Mosquitto as a child process: started, made ready, changed while it runs, ended.

Rule of this file: the child never outlives us and never runs as root. As root we start it
under its own account ourselves, before exec, instead of letting it drop root later: the
kernel forgets a parent-death signal when credentials change, so the drop inside mosquitto
would leave an orphan behind a killed controller.
Where its files lie: our directory is usually private (0700), and an unprivileged child
can't traverse it; opening it up would show tokens and keys to everybody. So as root the
files lie in a directory of its own under /run, which only root can create there (nobody
squats on the name), 0700 and owned by the account: nothing in it outlives a stop or a
reboot, and autosaves cost no flash. Not root: a directory under ours.
The log is opened by us and inherited, so the child needs no right to write beside it.
Rejected: `user root`; a world-readable copy; a group shared with the child.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import os
import pwd
import re
import resource
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from broker.acl import PROBE
from broker.contract import BrokerError, BrokerSetup, Login, checked_user, free_port
from broker.probe import ACCEPTED, probe
from broker.render import MosquittoPlan, acl_text, password_hash, password_text, write_atomically

ACCOUNT = "mosquitto"
READY_MS = 10_000
STOP_MS = 5_000
ASK_EVERY_MS = 20
ASK_TIMEOUT_MS = 500
"""Short, so that a child that died because its port was taken is noticed behind the port's owner."""
POLL_MS = 500
"""Only where the kernel has no pidfd (before 5.3, or a container that forbids it)."""
LOG_BYTES_MAX = 8_388_608
PORT_TRIES = 3
_SBIN = "/usr/sbin:/usr/local/sbin:/sbin"
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def find_binary() -> Path:
    """Where mosquitto 2 or newer is. Raises `BrokerError`."""
    found = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:{_SBIN}")
    if found is None:
        raise BrokerError("mosquitto is not installed (apt install mosquitto)")
    shown = subprocess.run([found, "-h"], capture_output=True, text=True, timeout=10, check=False).stdout
    version = re.search(r"version (\d+)\.(\d+)", shown)
    if version is None or int(version[1]) < 2:
        raise BrokerError(f"{found} is older than mosquitto 2.0")
    return Path(found)


class MosquittoBroker:
    """`Broker` by a supervised mosquitto. All calls from one event loop, on a lasting thread.

    A removed user's connections are closed by the reload itself: mosquitto 2.0 checks every
    connected client against the new password file (its manual denies it; a test shows it).
    """

    kind = "mosquitto"
    manages_credentials = True
    warning: str | None = None

    def __init__(self, setup: BrokerSetup, binary: Path) -> None:
        self.host = setup.host
        self.port = setup.port
        self._setup = setup
        self._binary = binary
        self._account = _account()
        self._plan: MosquittoPlan | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._hashes = {checked_user(user): password_hash(word) for user, word in setup.users.items()}
        self._probe_password = ""
        self._changing = asyncio.Lock()

    @property
    def log_path(self) -> Path:
        return self._setup.directory / "mosquitto.log"

    @property
    def pid(self) -> int | None:
        """Of the running child, for supervisors and tests."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    async def start(self) -> None:
        async with self._changing:
            await self._start()

    async def _start(self) -> None:
        if self.pid is not None:
            raise BrokerError("mosquitto runs already")
        directory = self._make_directories()
        tries = PORT_TRIES if self.port == 0 else 1
        for left in range(tries - 1, -1, -1):
            port = self.port or free_port(self.host)
            self._plan = MosquittoPlan(directory=directory, host=self.host, port=port)
            try:
                await self._launch(self._plan)
            except BrokerError:
                await self._kill()
                if not left:
                    raise
            else:
                self.port = port
                return

    async def _launch(self, plan: MosquittoPlan) -> None:
        self._write_users(plan)
        write_atomically(plan.config_path, plan.config(), self._owner)
        self._child = self._spawn(plan)
        await self._until_let_in(plan)

    async def stop(self) -> None:
        async with self._changing:
            if self.pid is not None and self._child is not None:
                self._child.terminate()
                if not await _ended(self._child, STOP_MS):
                    await self._kill()
            if self._account is not None and self._plan is not None:
                shutil.rmtree(self._plan.directory, ignore_errors=True)

    async def restart(self, lose_state: bool = False) -> None:
        async with self._changing:
            await self._kill()
            if lose_state and self._plan is not None:
                self._plan.database_path.unlink(missing_ok=True)
            await self._start()

    async def exited(self) -> str:
        child = self._child
        if child is None:
            return "not started"
        while not await _ended(child, 3_600_000):
            pass
        code = child.returncode
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    async def add_users(self, passwords: Mapping[str, str]) -> None:
        async with self._changing:
            self._hashes |= {checked_user(user): password_hash(word) for user, word in passwords.items()}
            await self._reload()

    async def remove_users(self, users: tuple[str, ...]) -> None:
        async with self._changing:
            for user in users:
                self._hashes.pop(user, None)
            await self._reload()

    def login(self, user: str, password: str) -> Login:
        return Login(user, password)

    # ------------------------------------------------------------------------ inside

    @property
    def _owner(self) -> tuple[int, int] | None:
        return None if self._account is None else (self._account.pw_uid, self._account.pw_gid)

    def _make_directories(self) -> Path:
        ours = self._setup.directory
        ours.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._account is None:
            directory = ours / "mosquitto"
            directory.mkdir(mode=0o700, exist_ok=True)
            directory.chmod(0o700)
            return directory.resolve()
        return _runtime_directory(ours.resolve(), self._account)

    def _write_users(self, plan: MosquittoPlan) -> None:
        """New files for all users; the probe's new password tells when they are in force."""
        self._probe_password = secrets.token_urlsafe(32)
        hashes = {**self._hashes, PROBE: password_hash(self._probe_password)}
        write_atomically(plan.acl_path, acl_text(self._setup.fleet, hashes), self._owner)
        write_atomically(plan.password_path, password_text(hashes), self._owner)

    async def _reload(self) -> None:
        """Without a child the files wait for the next start, which writes them."""
        if self._plan is None or self._child is None or self.pid is None:
            return
        self._write_users(self._plan)
        _bound_log(self.log_path)
        self._child.send_signal(signal.SIGHUP)
        await self._until_let_in(self._plan)

    def _spawn(self, plan: MosquittoPlan) -> subprocess.Popen[bytes]:
        account = self._account
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        _bound_log(self.log_path)
        log = os.open(self.log_path, flags, 0o600)
        try:
            return subprocess.Popen(
                [self._binary, "-c", plan.config_path],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={"PATH": "/usr/bin:/bin"},
                user=None if account is None else account.pw_uid,
                group=None if account is None else account.pw_gid,
                extra_groups=None if account is None else [],
                start_new_session=True,  # a Ctrl-C at the terminal is ours to handle
                preexec_fn=_BindToParent(os.getpid()),
            )
        except OSError as error:
            raise BrokerError(f"mosquitto can't be started: {error}") from error
        finally:
            os.close(log)

    async def _until_let_in(self, plan: MosquittoPlan) -> None:
        """Wait until the newest probe password is accepted, that is, until the files are read."""
        deadline = time.monotonic() + READY_MS / 1000
        last = "no answer"
        while time.monotonic() < deadline:
            if self.pid is None:
                raise BrokerError(f"mosquitto ended at once: {self._last_words()}")
            try:
                login = (PROBE, PROBE, self._probe_password)
                code = await probe(plan.host, plan.port, *login, timeout_ms=ASK_TIMEOUT_MS)
                if code == ACCEPTED:
                    return
                last = f"refused with {code}"
            except OSError as error:
                last = str(error) or type(error).__name__
            await asyncio.sleep(ASK_EVERY_MS / 1000)
        raise BrokerError(f"mosquitto is not ready after {READY_MS} ms: {last}")

    def _last_words(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").strip().splitlines()
        except OSError as error:
            return str(error)
        errors = [line for line in lines[-10:] if "Error" in line]
        return (errors or lines or ["nothing in its log"])[-1]

    async def _kill(self) -> None:
        if self._child is not None and self.pid is not None:
            self._child.kill()
            await _ended(self._child, STOP_MS)


def _account() -> pwd.struct_passwd | None:
    """Whom the child runs as: None for "as ourselves". Raises `BrokerError`."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(ACCOUNT)
    except KeyError:
        # `nobody`, which mosquitto would take, is shared with whatever else runs as nobody.
        raise BrokerError(f"there is no account {ACCOUNT!r} to run mosquitto as") from None


def _runtime_directory(ours: Path, account: pwd.struct_passwd) -> Path:
    """A directory of the account's own, 0700; the same for the same data directory."""
    run = Path("/run")
    if not (run.is_dir() and os.access(run, os.W_OK)):
        directory = Path(tempfile.mkdtemp(prefix="fleetmuster-broker-"))
    else:
        name = hashlib.sha256(os.fsencode(ours)).hexdigest()[:16]
        directory = run / f"fleetmuster-broker-{name}"
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, account.pw_uid):
        raise BrokerError(f"{directory} is not ours")
    os.chown(directory, account.pw_uid, account.pw_gid)
    directory.chmod(0o700)
    return directory


def _bound_log(path: Path) -> None:
    """Start the log anew when it is too large; the child appends, so it needs not know."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES_MAX:
            os.truncate(path, 0)


class _BindToParent:
    """Runs between fork and exec: die with the parent, and may hold many sockets.

    Only system calls on things made before the fork; nothing here takes a lock.
    """

    def __init__(self, parent: int) -> None:
        self._parent = parent
        _, self._files_max = resource.getrlimit(resource.RLIMIT_NOFILE)

    def __call__(self) -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self._files_max, self._files_max))
        if os.getppid() != self._parent:  # it died before we had asked
            os._exit(1)


async def _ended(child: subprocess.Popen[bytes], timeout_ms: int) -> bool:
    """Whether the child ends within that time; sleeps on a pidfd, not on a clock."""
    if child.poll() is not None:
        return True
    try:
        descriptor = os.pidfd_open(child.pid)
    except OSError:
        return await _polled(child, timeout_ms)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), timeout_ms / 1000)
    except TimeoutError:
        pass  # the answer below says so
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return child.poll() is not None


async def _polled(child: subprocess.Popen[bytes], timeout_ms: int) -> bool:
    deadline = time.monotonic() + timeout_ms / 1000
    while child.poll() is None and time.monotonic() < deadline:
        await asyncio.sleep(POLL_MS / 1000)
    return child.poll() is not None
