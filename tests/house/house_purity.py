"""What a pure file may not do: touch the world, roll dice, or depend on the order of a set.

The walk is a heuristic: it knows a name as a set when it is annotated or assigned as one
in the same function, class or file. What it can't see, the determinism test catches: one
seed under two PYTHONHASHSEEDs gives one trace.
"""

from __future__ import annotations

import ast
from fnmatch import fnmatch

from house_source import House, Source

PURE = (
    "protocol/*.py",
    "edge_agent/core/*.py",
    "edge_agent/runtimes/simulated.py",
    "edge_agent/guard_frames.py",
    "edge_agent/guard_runs.py",
    "controller/core/*.py",
    "controller/scheduler/*.py",
    "broker/model.py",
    "broker/events.py",
    "broker/filters.py",
    "broker/sessions.py",
    "broker/subscriptions.py",
    "firmware_profiles/*.py",
    "sim/*.py",
    "sim/checking/*.py",
    "sim/fault_families/*.py",
    "sim/machines/*.py",
    "sim/command/refusals.py",
    "sim/command/tally.py",
)
WORLDLY = (
    "sim/cli.py",
    "sim/command/safety.py",
    "sim/command/others.py",
    "sim/command/findings.py",
    "sim/command/progress.py",
    "sim/command/workers.py",
    "sim/__main__.py",
    "firmware_profiles/loader.py",
)

MODULES = frozenset(
    "asyncio threading socket os subprocess time datetime secrets uuid logging multiprocessing select"
    " selectors signal concurrent sqlite3 tempfile shutil".split()
)
CALENDAR = "controller/core/calendar.py"
"""May import `datetime`: it adds days to times that it is given. What would read this machine's
clock or its local time zone stays forbidden (`NOW`)."""
NOW = frozenset("now utcnow today fromtimestamp utcfromtimestamp timestamp localtime".split())
CALLS = frozenset("print open input breakpoint hash id exec eval".split())
SET_TYPES = frozenset("set frozenset Set FrozenSet AbstractSet MutableSet".split())
SET_METHODS = frozenset("union intersection difference symmetric_difference".split())
ORDERED = frozenset(
    "list tuple iter enumerate zip map filter deque array fromiter fromkeys join extend".split()
)
UNORDERED = frozenset("set frozenset sorted any all len sum min max update".split())


def is_pure(path: str) -> bool:
    return path not in WORLDLY and any(fnmatch(path, pattern) for pattern in PURE)


def impure(house: House) -> list[str]:
    """Everything in pure files that reads a clock, rolls dice, does I/O or walks a set."""
    found = []
    for source in house.shipped():
        if is_pure(source.path):
            found += _imports(house, source) + _calls(source) + Sets(source).found
    return found


def _imports(house: House, source: Source) -> list[str]:
    found = [
        f"{source.path}:{item.line}: pure file imports {item.target}"
        for item in house.imports(source)
        if item.target.split(".", 1)[0] in MODULES and not _dates(source, item.target)
    ]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module == "random":
            if [alias.name for alias in node.names] != ["Random"]:
                found.append(source.at(node, "pure file takes the global die; take a random.Random"))
    return found


def _dates(source: Source, target: str) -> bool:
    return source.path == CALENDAR and target.split(".", 1)[0] == "datetime"


def _asks_the_clock(node: ast.AST) -> bool:
    """A method that reads the clock or the machine's own zone; `astimezone()` does without a zone."""
    if not isinstance(node, ast.Attribute):
        return isinstance(node, ast.Call) and not node.args and _call_name(node) == "astimezone"
    return node.attr in NOW


def _calls(source: Source) -> list[str]:
    found = []
    if source.path == CALENDAR:
        found += [
            source.at(node, f"`{ast.unparse(node)}` asks this machine's clock or zone")
            for node in ast.walk(source.tree)
            if _asks_the_clock(node)
        ]
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "random" and node.attr != "Random":
            found.append(source.at(node, f"pure file uses random.{node.attr}; take a random.Random"))
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        if name in CALLS:
            found.append(source.at(node, f"pure file calls {name}()"))
        seeded = bool(node.args)
        if name in ("random.Random", "Random") and not seeded:
            found.append(source.at(node, "a die without a seed"))
        if name.startswith(("np.random.", "numpy.random.")) and not (
            name.endswith(".default_rng") and seeded
        ):
            found.append(source.at(node, f"pure file uses {name}"))
        for keyword in node.keywords:
            if keyword.arg == "key" and ast.unparse(keyword.value) in ("id", "hash"):
                found.append(source.at(node, f"order by {ast.unparse(keyword.value)}"))
    return found


class Sets:
    """Finds places where the order of a set becomes visible."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.found: list[str] = []
        self.attributes = self._set_attributes()
        self.functions = self._set_functions()
        self._scope(source.tree, self._names(source.tree))

    # ---------------------------------------------------------- which names are sets

    def _set_attributes(self) -> set[str]:
        """Attributes annotated or assigned as sets anywhere in the file: `self.x: set[int]`, fields."""
        names: set[str] = set()
        for node in ast.walk(self.source.tree):
            if isinstance(node, ast.ClassDef):
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and _set_type(item.annotation):
                        names.add(ast.unparse(item.target))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Attribute):
                if _set_type(node.annotation):
                    names.add(node.target.attr)
            if isinstance(node, ast.Assign) and _plain_set(node.value):
                names.update(target.attr for target in node.targets if isinstance(target, ast.Attribute))
        return names

    def _set_functions(self) -> set[str]:
        return {
            node.name
            for node in ast.walk(self.source.tree)
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            and node.returns
            and _set_type(node.returns)
        }

    def _names(self, scope: ast.AST) -> set[str]:
        """Local names that are sets; twice over, so that one made of another is known too."""
        names: set[str] = set()
        if isinstance(scope, (ast.FunctionDef, ast.AsyncFunctionDef)):
            arguments = scope.args
            for item in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]:
                if item.annotation and _set_type(item.annotation):
                    names.add(item.arg)
        for _ in range(2):
            for node in _own_nodes(scope):
                if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                    if _set_type(node.annotation):
                        names.add(node.target.id)
                if isinstance(node, (ast.Assign, ast.NamedExpr)) and self._is_set(node.value, names):
                    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                    names.update(target.id for target in targets if isinstance(target, ast.Name))
        return names

    def _is_set(self, node: ast.expr, names: set[str]) -> bool:
        if _plain_set(node):
            return True
        if isinstance(node, ast.Name):
            return node.id in names
        if isinstance(node, ast.Attribute):
            return node.attr in self.attributes
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.BitOr, ast.BitAnd, ast.Sub, ast.BitXor)):
            return any(self._is_set(side, names) or _is_keys(side) for side in (node.left, node.right))
        if isinstance(node, ast.IfExp):
            return self._is_set(node.body, names) or self._is_set(node.orelse, names)
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute):
                of_set = self._is_set(node.func.value, names)
                return (
                    of_set and node.func.attr in SET_METHODS | {"copy"}
                ) or node.func.attr in self.functions
            return isinstance(node.func, ast.Name) and node.func.id in self.functions
        return False

    # ---------------------------------------------------------- where order shows

    def _scope(self, scope: ast.AST, names: set[str]) -> None:
        unordered = _in_unordered_calls(scope)
        for node in _own_nodes(scope):
            for walked in _walked(node, unordered):
                if self._is_set(walked, names):
                    self.found.append(self.source.at(node, f"walks the set `{ast.unparse(walked)}` unsorted"))
            if _is_bare_pop(node) and self._is_set(node.func.value, names):  # type: ignore[attr-defined]
                self.found.append(self.source.at(node, "pops from a set: which element is chance"))
        for node in _inner_scopes(scope):
            self._scope(node, names | self._names(node))


def _own_nodes(scope: ast.AST) -> list[ast.AST]:
    """Nodes of a scope without those of the functions and classes in it."""
    found: list[ast.AST] = []
    todo = list(ast.iter_child_nodes(scope))
    while todo:
        node = todo.pop()
        if not _opens_scope(node):
            found.append(node)
            todo.extend(ast.iter_child_nodes(node))
    return sorted(found, key=lambda node: getattr(node, "lineno", 0))


def _opens_scope(node: ast.AST) -> bool:
    return isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))


def _inner_scopes(scope: ast.AST) -> list[ast.AST]:
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(scope):
        found += [node] if _opens_scope(node) else _inner_scopes(node)
    return found


def _set_type(annotation: ast.expr) -> bool:
    text = ast.unparse(annotation).strip("'\"")
    return text.split("[", 1)[0].rsplit(".", 1)[-1].split(" ", 1)[0] in SET_TYPES


def _plain_set(node: ast.expr | None) -> bool:
    if isinstance(node, (ast.Set, ast.SetComp)):
        return True
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("set", "frozenset")


def _is_keys(node: ast.expr) -> bool:
    """`a.keys() - b.keys()` is a set though neither side is."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "keys"


def _is_bare_pop(node: ast.AST) -> bool:
    call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "pop"
    return call and not node.args  # type: ignore[attr-defined]


def _call_name(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else ast.unparse(node.func)


def _in_unordered_calls(scope: ast.AST) -> set[int]:
    """Generators that stand directly in `any(...)`, `sorted(...)`, …, where order can't show."""
    calls = [node for node in _own_nodes(scope) if isinstance(node, ast.Call) and node.args]
    return {
        id(node.args[0])
        for node in calls
        if _call_name(node) == "sorted" or (_call_name(node) in UNORDERED and not node.keywords)
    }


def _walked(node: ast.AST, unordered: set[int]) -> list[ast.expr]:
    """The expressions that this node walks in their order."""
    if isinstance(node, (ast.For, ast.AsyncFor)):
        return [node.iter]
    if isinstance(node, (ast.ListComp, ast.DictComp, ast.GeneratorExp)):
        if id(node) in unordered:
            return []
        return [part.iter for part in node.generators]
    if isinstance(node, (ast.Starred, ast.YieldFrom)):
        return [node.value]
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Tuple, ast.List)):
        return [node.value]
    if isinstance(node, ast.Call):
        name = _call_name(node)
        tied = name in ("min", "max") and any(keyword.arg == "key" for keyword in node.keywords)
        return list(node.args) if name in ORDERED or tied else []
    return []
