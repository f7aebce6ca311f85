"""Sizes, dead modules, doubled names, docstrings, and words that don't belong here."""

from __future__ import annotations

import ast
import re

from house_source import PACKAGES, House

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
DOCUMENTED = ("protocol", "live", "broker")

ENTRY_POINTS = frozenset(
    {
        "fleetmuster.cli",  # the scripts of pyproject.toml
        "edge_agent.cli",
        "edge_agent.guard",  # run by path: python -I -S guard.py
    }
)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def oversized(house: House) -> list[str]:
    """Functions and files beyond the end."""
    found = []
    for source in house.sources:
        lines = source.text.count("\n")
        if lines > FILE_LINES_MAX:
            found.append(f"{source.path}: {lines} lines; {FILE_LINES_MAX} is the end")
        for node in ast.walk(source.tree):
            if isinstance(node, Function):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                if size > FUNCTION_LINES_MAX:
                    found.append(
                        source.at(node, f"{node.name} has {size} lines; {FUNCTION_LINES_MAX} is the end")
                    )
    return found


def unimported(house: House) -> list[str]:
    """Shipped modules that no shipped code names: by import, or as text (`"pkg.mod:main"`)."""
    named = set(ENTRY_POINTS)
    for source in house.shipped():
        named.update(item.target for item in house.imports(source) if item.target != source.module)
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                named.add(node.value.split(":", 1)[0])
    return [
        f"{source.path}: nothing imports it"
        for source in house.shipped()
        if source.module not in named and not source.path.endswith(("__init__.py", "__main__.py"))
    ]


def doubled_classes(house: House) -> list[str]:
    """Public class names that two packages define."""
    homes: dict[str, dict[str, str]] = {}
    for source in house.shipped():
        for node in source.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes.setdefault(node.name, {})[source.package] = source.path
    return [
        f"class {name} is in {' and in '.join(sorted(places.values()))}"
        for name, places in sorted(homes.items())
        if len(places) > 1
    ]


def undocumented(house: House) -> list[str]:
    """Modules without a docstring; public functions and classes without one where others build on them."""
    shipped = house.shipped()
    found = [source.at(source.tree, "no module docstring") for source in shipped if _bare(source.tree)]
    for source in house.shipped():
        if source.package in DOCUMENTED:
            found += [
                source.at(node, f"{node.name} has no docstring")
                for node in source.tree.body
                if isinstance(node, ast.ClassDef | Function) and node.name[0] != "_" and _bare(node)
            ]
    return found


def _bare(node: ast.Module | ast.ClassDef | Function) -> bool:
    return not (ast.get_docstring(node) or "").strip()


def swallowed(house: House) -> list[str]:
    """`except Exception: pass` and its relatives: trouble that nobody hears of."""
    found = []
    for source in house.shipped():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ExceptHandler) and _catches_all(node) and _does_nothing(node):
                found.append(source.at(node, "catches everything and does nothing"))
    return found


def _catches_all(node: ast.ExceptHandler) -> bool:
    return node.type is None or ast.unparse(node.type) in ("Exception", "BaseException")


def _does_nothing(node: ast.ExceptHandler) -> bool:
    return all(isinstance(item, ast.Pass | ast.Continue) for item in node.body)


# Built of pieces, so that this file doesn't contain what it looks for.
_FORBIDDEN = {
    "a path of one machine": r"(?<![\w.}/~-])/(?:wo" + r"rk|ro" + r"ot|opt/wh" + r"eels)/\w"
    r"|/home/(?!fm\b|pi\b)\w+/",
    "a package registry": r"(?:pyp"
    + r"i\.org|pythonhost"
    + r"ed|artifact"
    + r"ory|jfr"
    + r"og|nex"
    + r"us\.)",
    "a registry setting": r"--?(?:extra-)?index-u" + r"rl\b|PIP_INDEX_U" + r"RL|trusted-ho" + r"st\b",
    "an internal host": r"https?://[\w.-]+\.(?:inter" + r"nal|co" + r"rp|in" + r"tra)\b",
    "unfinished work": r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b",
    "talk about how it was made": r"\bthe br" + r"ief\b|\bas an A" + r"I\b|\bco-auth" + r"ored-by\b",
}
FORBIDDEN = {what: re.compile(pattern) for what, pattern in _FORBIDDEN.items()}


def forbidden_words(path: str, text: str) -> list[str]:
    """Lines that name a machine, a registry, or how the project is made."""
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        for what, pattern in FORBIDDEN.items():
            match = pattern.search(line)
            if match:
                found.append(f"{path}:{number}: {what}: {match.group()}")
    return found


def unpackaged(house: House, paths: list[str], patterns: list[str], suffixes: tuple[str, ...]) -> list[str]:
    """Shipped folders without `__init__.py`, and data files that no pattern of the wheel names."""
    found = []
    for source in house.shipped():
        parts = (
            source.module.split(".") if source.path.endswith("__init__.py") else source.module.split(".")[:-1]
        )
        for size in range(1, len(parts) + 1):
            if ".".join(parts[:size]) not in house.by_module:
                found.append(f"{source.path}: {'/'.join(parts[:size])}/__init__.py is missing")
    globs = [re.compile(re.escape(pattern).replace(r"\*", "[^/]*") + "$") for pattern in patterns]
    for path in paths:
        if path.split("/", 1)[0] in PACKAGES and path.endswith(suffixes):
            if not any(glob.match(path) for glob in globs):
                found.append(f"{path}: pyproject.toml doesn't ship it")
    return sorted(set(found))
