"""The project's source files as syntax trees, and who imports whom.

Rule of this file: it only reads. What is allowed is in the rules beside it, and what is
broken is told by the tests. It takes what exists (a package not yet there is no error).
A house can also be made of strings, so that each rule is tried on a small wrong example.
"""

from __future__ import annotations

import ast
import functools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "protocol",
    "live",
    "edge_agent",
    "controller",
    "broker",
    "firmware_profiles",
    "sim",
    "fleetmuster",
)
SHIPPED_NOT = ("tests", "benchmarks")


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module: absolute name, and where."""

    target: str
    line: int


@dataclass(slots=True)
class Source:
    """One Python file: path from the root with slashes, and its tree."""

    path: str
    text: str
    tree: ast.Module = field(init=False)

    def __post_init__(self) -> None:
        self.tree = ast.parse(self.text, self.path)

    @property
    def module(self) -> str:
        parts = list(PurePosixPath(self.path).with_suffix("").parts)
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def package(self) -> str:
        return self.path.split("/", 1)[0]

    def at(self, node: ast.AST, text: str) -> str:
        """A finding, in the form that editors follow."""
        return f"{self.path}:{getattr(node, 'lineno', 1)}: {text}"


class House:
    """All sources by module name."""

    def __init__(self, sources: list[Source]) -> None:
        self.sources = sources
        self.by_module = {source.module: source for source in sources}

    def shipped(self) -> list[Source]:
        return [source for source in self.sources if source.package in PACKAGES]

    def imports(self, source: Source) -> Iterator[Import]:
        """Every import, wherever it stands: in functions and under TYPE_CHECKING too."""
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    yield Import(alias.name, node.lineno)
            elif isinstance(node, ast.ImportFrom):
                base = self._base(source, node)
                for alias in node.names:
                    whole = f"{base}.{alias.name}"
                    yield Import(whole if whole in self.by_module else base, node.lineno)

    def _base(self, source: Source, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = source.module.split(".")
        if not source.path.endswith("__init__.py"):
            parts = parts[:-1]
        parts = parts[: len(parts) - (node.level - 1)]
        return ".".join([*parts, node.module] if node.module else parts)


def house_of(files: dict[str, str]) -> House:
    """A house made of strings: path to text."""
    return House([Source(path, text) for path, text in files.items()])


def tracked_files() -> list[str]:
    """What belongs to the project: what git knows or would add; outside of git, what is there."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=30).stdout
        names = [name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.SubprocessError):
        names = [path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file()]
        names = [name for name in names if not name.startswith((".venv/", ".git/", "build/"))]
    return sorted(name for name in names if (ROOT / name).is_file())


@functools.cache
def the_house() -> House:
    """Every Python file of the project."""
    paths = [name for name in tracked_files() if name.endswith(".py")]
    return House([Source(path, (ROOT / path).read_text(encoding="utf-8")) for path in paths])


def none_of(found: list[str]) -> None:
    """Fails with one finding a line."""
    assert not found, f"{len(found)} findings:\n" + "\n".join(found)
