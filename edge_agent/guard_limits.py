"""How much a run may use: control groups where the kernel lets us, rlimits where not.

One base directory per guard and hierarchy, one directory in it per run; only the run's own
processes join it (a supervisor inside would be the memory controller's favourite victim).
Nested below the cgroup the guard itself is in, so a limit on the agent holds for its runs.
Which controllers work is found out, not assumed: Raspberry Pi OS boots without the memory
controller. What no controller covers falls to rlimits: RLIMIT_DATA for memory (RLIMIT_AS
would refuse the address space that runtimes merely reserve), RLIMIT_NPROC for pids and only
under a uid of the runs' own. cpu has no rlimit. disk_mib bounds each single file.
It knows nothing of deadlines. Rejected: libcgroup, systemd scopes over D-Bus.
"""

from __future__ import annotations

import errno
import os
import resource

from edge_agent import guard_kernel as kernel

CONTROLLERS = ("cpu", "memory", "pids")
BASE_PREFIX = "fleetmuster-"
MAIN_LEAF = "fleetmuster-main"
CPU_PERIOD_US = 100_000
CPU_QUOTA_US_MIN = 1_000
"""Less is refused by the kernel."""


class Limits:
    """The mechanism in use. `bases`: directory of each hierarchy -> the controllers it has."""

    __slots__ = ("bases", "mechanism")

    def __init__(self, mechanism: str, bases: dict[str, tuple[str, ...]]) -> None:
        self.mechanism = mechanism
        self.bases = bases

    @property
    def controllers(self) -> tuple[str, ...]:
        return tuple(sorted(name for names in self.bases.values() for name in names))

    def create(self, name: str, cpu_milli: int, memory_mib: int, pids_max: int) -> list[str]:
        """Directories of one run, limits set; zero means no limit. Raises OSError."""
        made: list[str] = []
        try:
            for base, controllers in self.bases.items():
                directory = f"{base}/{name}"
                os.mkdir(directory)
                made.append(directory)
                for controller in controllers:
                    self._set(directory, controller, cpu_milli, memory_mib, pids_max)
        except OSError:
            remove(made)
            raise
        return made

    def _set(self, directory: str, controller: str, cpu_milli: int, memory_mib: int, pids_max: int) -> None:
        unified = self.mechanism == "cgroup2"
        if controller == "pids" and pids_max:
            write(f"{directory}/pids.max", str(pids_max))
        elif controller == "memory" and memory_mib:
            (_set_memory_2 if unified else _set_memory_1)(directory, memory_mib << 20)
        elif controller == "cpu" and cpu_milli:
            (_set_cpu_2 if unified else _set_cpu_1)(directory, cpu_milli)

    def apply_rlimits(self, memory_mib: int, disk_mib: int, pids_max: int, own_uid: bool) -> None:
        """In the run's process, before its program: what the control groups don't cover."""
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if disk_mib:
            _set_rlimit(resource.RLIMIT_FSIZE, disk_mib << 20)
        if memory_mib and "memory" not in self.controllers:
            _set_rlimit(resource.RLIMIT_DATA, memory_mib << 20)
        if pids_max and own_uid and "pids" not in self.controllers:
            _set_rlimit(resource.RLIMIT_NPROC, pids_max)

    def remove_bases(self) -> None:
        """Best effort, when no run is left."""
        remove(list(self.bases))


def write(path: str, text: str) -> None:
    """One write(2) to an existing file. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(65_536).decode("utf-8", "replace")
    except OSError:
        return ""


def _try_write(path: str, text: str) -> None:
    """For refinements that some kernels don't have."""
    try:
        write(path, text)
    except OSError:
        return


def _set_memory_1(directory: str, limit_bytes: int) -> None:
    write(f"{directory}/memory.limit_in_bytes", str(limit_bytes))
    _try_write(f"{directory}/memory.memsw.limit_in_bytes", str(limit_bytes))


def _set_memory_2(directory: str, limit_bytes: int) -> None:
    write(f"{directory}/memory.max", str(limit_bytes))
    _try_write(f"{directory}/memory.swap.max", "0")
    _try_write(f"{directory}/memory.oom.group", "1")


def _quota_us(cpu_milli: int) -> int:
    return max(CPU_QUOTA_US_MIN, cpu_milli * CPU_PERIOD_US // 1000)


def _set_cpu_1(directory: str, cpu_milli: int) -> None:
    _try_write(f"{directory}/cpu.shares", str(max(2, cpu_milli * 1024 // 1000)))
    write(f"{directory}/cpu.cfs_period_us", str(CPU_PERIOD_US))
    write(f"{directory}/cpu.cfs_quota_us", str(_quota_us(cpu_milli)))


def _set_cpu_2(directory: str, cpu_milli: int) -> None:
    _try_write(f"{directory}/cpu.weight", str(max(1, min(10_000, cpu_milli // 10))))
    write(f"{directory}/cpu.max", f"{_quota_us(cpu_milli)} {CPU_PERIOD_US}")


def _set_rlimit(which: int, value: int) -> None:
    hard = resource.getrlimit(which)[1]
    bounded = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (bounded, bounded))


# ------------------------------------------------------------------ one run's directories


def join(directories: list[str]) -> None:
    """Moves the calling process into them. Raises OSError."""
    for directory in directories:
        write(f"{directory}/cgroup.procs", "0")


def members(directories: list[str]) -> list[int]:
    """Pids inside. A zombie is still listed until it is reaped."""
    found: set[int] = set()
    for directory in directories:
        found.update(int(word) for word in _read(f"{directory}/cgroup.procs").split() if word != "0")
    return sorted(found)


def kill_members(directories: list[str]) -> list[int]:
    """SIGKILL to everything inside; returns who was there."""
    for directory in directories:
        if os.path.exists(f"{directory}/cgroup.kill"):
            _try_write(f"{directory}/cgroup.kill", "1")
    there = members(directories)
    kernel.kill_all(there)
    return there


def oom_kills(directories: list[str]) -> int:
    """How often the kernel killed inside for want of memory; 0 where it doesn't say."""
    for directory in directories:
        for file in ("memory.events", "memory.oom_control"):
            for line in _read(f"{directory}/{file}").splitlines():
                words = line.split()
                if len(words) == 2 and words[0] == "oom_kill":
                    return int(words[1])
    return 0


def remove(directories: list[str]) -> list[str]:
    """Removes empty directories; returns those that are still busy."""
    busy: list[str] = []
    for directory in reversed(directories):
        try:
            os.rmdir(directory)
        except FileNotFoundError:
            continue
        except OSError:
            busy.append(directory)
    return busy


def run_directories(base: str) -> list[str]:
    """What stands below one base, empty when it is gone."""
    try:
        return sorted(entry.path for entry in os.scandir(base) if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


# ------------------------------------------------------------------ finding the mechanism


def find_limits(name: str, allowed: str = "auto") -> Limits:
    """The best mechanism this machine allows, its bases named `name`; `allowed` may forbid groups."""
    if allowed != "rlimit":
        for mechanism, find in (("cgroup2", _find_2), ("cgroup1", _find_1)):
            bases = find(name)
            if bases:
                return Limits(mechanism, bases)
    return Limits("rlimit", {})


def parents(limits: Limits) -> list[str]:
    """The directories that hold the bases of all guards, ours included."""
    return sorted({os.path.dirname(base) for base in limits.bases})


def _mounts(kind: str) -> list[tuple[str, list[str]]]:
    rows = [line.split(" ") for line in _read("/proc/self/mounts").splitlines()]
    return [(row[1], row[3].split(",")) for row in rows if len(row) > 3 and row[2] == kind]


def _own_path(controller: str) -> str:
    """Our cgroup in a version 1 hierarchy, or in the unified one for an empty name."""
    for line in _read("/proc/self/cgroup").splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(","):
            return path.rstrip("/")
    return ""


def _find_1(name: str) -> dict[str, tuple[str, ...]]:
    bases: dict[str, tuple[str, ...]] = {}
    for point, options in _mounts("cgroup"):
        here = tuple(word for word in CONTROLLERS if word in options)
        if not here:
            continue
        own = point + _own_path(here[0])
        base = f"{own if os.path.isdir(own) else point}/{name}"
        try:
            os.mkdir(base)
            write(f"{base}/cgroup.clone_children", "0")
        except OSError:
            remove([base])
            continue
        bases[base] = here
    return bases


def _find_2(name: str) -> dict[str, tuple[str, ...]]:
    for point, _ in _mounts("cgroup2"):
        own = point + _own_path("")
        if os.path.basename(own) == MAIN_LEAF:
            own = os.path.dirname(own)
        wanted = [word for word in CONTROLLERS if word in _read(f"{own}/cgroup.controllers").split()]
        base = f"{own}/{name}"
        try:
            if wanted and _enable(own, wanted):
                os.mkdir(base)
                write(f"{base}/cgroup.subtree_control", " ".join(f"+{word}" for word in wanted))
                return {base: tuple(wanted)}
        except OSError:
            remove([base])
    return {}


def _enable(own: str, wanted: list[str]) -> bool:
    """Controllers for our children; a cgroup with processes may not have any, so those move first."""
    control = f"{own}/cgroup.subtree_control"
    if set(wanted) <= set(_read(control).split()):
        return True
    text = " ".join(f"+{word}" for word in wanted)
    try:
        write(control, text)
        return True
    except OSError as error:
        if error.errno != errno.EBUSY or not _is_delegated(own):
            return False
    leaf = f"{own}/{MAIN_LEAF}"
    os.makedirs(leaf, exist_ok=True)
    for pid in members([own]):
        _try_write(f"{leaf}/cgroup.procs", str(pid))
    write(control, text)
    return True


def _is_delegated(own: str) -> bool:
    """systemd marks what a unit with Delegate= may arrange; elsewhere processes aren't ours to move."""
    for attribute in ("trusted.delegate", "user.delegate"):
        try:
            if os.getxattr(own, attribute) == b"1":
                return True
        except OSError:
            continue
    return False
