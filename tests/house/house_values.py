"""Events, effects and messages are values; the guard is small enough to be trusted.

Values: slotted dataclasses (or named tuples, enums, empty bases) that nobody assigns to
after construction. The walk follows names annotated with, or constructed from, such a
class. The guard is exempt from dataclasses: it imports a short list and nothing else.
"""

from __future__ import annotations

import ast
from fnmatch import fnmatch

from house_source import House, Source

VALUE_FILES = (
    "protocol/*.py",
    "edge_agent/core/events.py",
    "edge_agent/core/effects.py",
    "controller/core/events.py",
    "controller/core/effects.py",
    "broker/events.py",
)
VALUE_BASES = frozenset({"Event", "Effect", "Message"})

GUARD = "edge_agent.guard"
GUARD_MODULES = frozenset(
    "os sys signal socket struct select time errno ctypes fcntl resource __future__".split()
)


def loose_values(house: House) -> list[str]:
    """Dataclasses of value files, and heirs of Event, Effect and Message anywhere, without slots."""
    found = []
    for source in house.shipped():
        for node in _classes(source):
            heir = VALUE_BASES & {ast.unparse(base).rsplit(".", 1)[-1] for base in node.bases}
            decorator = _dataclass(node)
            if decorator is None:
                if heir and not _has_slots(node):
                    found.append(source.at(node, f"{node.name} is no slotted dataclass"))
            elif (heir or _is_value_file(source)) and "slots=True" not in decorator.replace(" ", ""):
                found.append(source.at(node, f"dataclass {node.name} has no slots"))
    return found


def assigned_values(house: House) -> list[str]:
    """Places that change an attribute of an event, effect or message after construction."""
    values = {
        node.name
        for source in house.shipped()
        if _is_value_file(source)
        for node in _classes(source)
        if _dataclass(node)
    }
    found = []
    for source in house.shipped():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found += _changes(source, node, _value_names(node, values | VALUE_BASES))
        if _is_value_file(source):
            for owner in _classes(source):
                for method in owner.body:
                    own = _dataclass(owner) and isinstance(method, ast.FunctionDef)
                    if own and method.name != "__post_init__":  # type: ignore[union-attr]
                        found += _changes(source, method, {"self"})
    return sorted(set(found))


def guard_imports(house: House) -> list[str]:
    """What the guard, its package's `__init__` and every file they import take beyond the list."""
    found = []
    todo, seen = ["edge_agent", GUARD], {GUARD}
    while todo:
        source = house.by_module.get(todo.pop())
        for item in house.imports(source) if source else ():
            if item.target.startswith(GUARD) and item.target in house.by_module:
                if item.target not in seen:
                    seen.add(item.target)
                    todo.append(item.target)
            elif item.target not in GUARD_MODULES:
                found.append(f"{source.path}:{item.line}: the guard may not import {item.target}")
    return found


def _is_value_file(source: Source) -> bool:
    return any(fnmatch(source.path, pattern) for pattern in VALUE_FILES)


def _classes(source: Source) -> list[ast.ClassDef]:
    return [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]


def _dataclass(node: ast.ClassDef) -> str | None:
    """The text of its dataclass decorator."""
    for decorator in node.decorator_list:
        text = ast.unparse(decorator)
        if text.split("(", 1)[0].rsplit(".", 1)[-1] == "dataclass":
            return text
    return None


def _has_slots(node: ast.ClassDef) -> bool:
    return any(
        isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "__slots__" for item in node.body
    )


def _words(text: str) -> set[str]:
    return set("".join(c if c.isalnum() or c == "_" else " " for c in text).split())


def _names_value(annotation: ast.expr | None, values: set[str]) -> bool:
    """The annotation is one of the classes or a union of them; a container of them isn't one."""
    if annotation is None:
        return False
    text = ast.unparse(annotation).strip("'\"")
    return "[" not in text and bool(_words(text.replace(".", " ")) & values)


def _value_names(function: ast.FunctionDef | ast.AsyncFunctionDef, values: set[str]) -> set[str]:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    names = {item.arg for item in named if _names_value(item.annotation, values)}
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if _names_value(node.annotation, values):
                names.add(node.target.id)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            if ast.unparse(node.value.func).rsplit(".", 1)[-1] in values:
                names.update(target.id for target in node.targets if isinstance(target, ast.Name))
    return names - {"self", "cls"}


def _changes(source: Source, function: ast.AST, names: set[str]) -> list[str]:
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            if isinstance(node.value, ast.Name) and node.value.id in names:
                found.append(source.at(node, f"changes {ast.unparse(node)} after construction"))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("setattr", "object.__setattr__"):
            if isinstance(node.args[0], ast.Name) and node.args[0].id in names:
                found.append(source.at(node, f"changes {ast.unparse(node.args[0])} after construction"))
    return found
