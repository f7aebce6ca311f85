"""Who may import whom: the floors as a table, and the rules that read it.

A module's floor is that of its longest name in the table. Imports go to a lower floor,
or to the same floor of the same package. To change the house, change the table, and say
why in the DESIGN.md of the package concerned.
"""

from __future__ import annotations

from house_source import PACKAGES, House, Source

WORDS, DATA, RANKING, CORE, LEAF, WORLD, ASSEMBLY, COMMAND = 0, 10, 15, 20, 30, 30, 40, 50

FLOORS = {
    "protocol": WORDS,
    "firmware_profiles": DATA,
    "broker": LEAF,
    "broker.__init__": DATA,
    "broker.model": DATA,
    "broker.events": DATA,
    "broker.filters": DATA,
    "broker.sessions": DATA,
    "broker.subscriptions": DATA,
    "broker.acl": DATA,
    "broker.cli": ASSEMBLY,
    "broker.__main__": ASSEMBLY,
    "controller": LEAF,
    "controller.__init__": RANKING,
    "controller.scheduler": RANKING,
    "controller.core": CORE,
    "controller.app": ASSEMBLY,
    "controller.wiring": ASSEMBLY,
    "controller.store.saver": ASSEMBLY,
    "controller.cli": ASSEMBLY,
    "controller.config": ASSEMBLY,
    "controller.__main__": ASSEMBLY,
    "edge_agent": LEAF,
    "edge_agent.__init__": CORE,
    "edge_agent.core": CORE,
    "edge_agent.guard_frames": CORE,
    "edge_agent.guard_runs": CORE,
    "edge_agent.runtimes.simulated": CORE,
    "edge_agent.app": ASSEMBLY,
    "edge_agent.uplink": ASSEMBLY,
    "edge_agent.virtual": ASSEMBLY,
    "edge_agent.virtual_config": ASSEMBLY,
    "edge_agent.runtimes.__init__": CORE,
    "edge_agent.runtimes.host": CORE,
    "edge_agent.cli": ASSEMBLY,
    "edge_agent.config": ASSEMBLY,
    "edge_agent.doctor": ASSEMBLY,
    "edge_agent.install": ASSEMBLY,
    "edge_agent.enrol": ASSEMBLY,
    "edge_agent.__main__": ASSEMBLY,
    "live": WORLD,
    "sim": WORLD,
    "sim.cli": ASSEMBLY,
    "sim.command.safety": ASSEMBLY,
    "sim.command.others": ASSEMBLY,
    "sim.command.findings": ASSEMBLY,
    "sim.command.progress": ASSEMBLY,
    "sim.command.workers": ASSEMBLY,
    "sim.__main__": ASSEMBLY,
    "fleetmuster": COMMAND,
}

NEVER = {
    # whatever the floors say
    "edge_agent": ("controller",),
    "controller": ("edge_agent",),
    "live": ("edge_agent", "controller", "broker", "firmware_profiles", "sim"),
    "broker": ("edge_agent", "controller", "sim"),
    "firmware_profiles": ("broker",),
}

THIRD_PARTY = {
    # longest name wins; what isn't here may import the standard library only
    "protocol": ("cbor2",),
    "live": ("paho", "gmqtt"),
    "edge_agent": ("psutil", "cbor2"),
    "edge_agent.core": ("cbor2",),
    "controller": ("numpy", "cbor2", "uvicorn", "uvloop"),
    "controller.core": ("numpy",),
    "controller.core.calendar": ("cronsim",),
    "controller.scheduler": ("numpy",),
    "controller.api": (
        "fastapi",
        "starlette",
        "pydantic",
        "pydantic_core",
        "typing_extensions",
        "uvicorn",
        "numpy",
    ),
    "broker": ("amqtt",),
    "broker.model": (),
    "sim": ("numpy",),
    "sim.command.progress": ("tqdm",),
    "fleetmuster": (),
}


def _longest(table: dict[str, object], module: str) -> str | None:
    parts = module.split(".")
    for size in range(len(parts), 0, -1):
        name = ".".join(parts[:size])
        if name in table:
            return name
    return None


def floor_of(module: str) -> int | None:
    """The floor of one of our modules; None for what isn't ours."""
    if f"{module}.__init__" in FLOORS:
        return FLOORS[f"{module}.__init__"]
    name = _longest(dict(FLOORS), module)
    return None if name is None else FLOORS[name]


def _refusal(source: Source, target: str) -> str | None:
    own_package, package = source.package, target.split(".", 1)[0]
    if package in NEVER.get(own_package, ()):
        return f"{own_package} never imports {package}"
    own, floor = floor_of(source.module), floor_of(target)
    if own is None or floor is None:
        return None
    if own_package == "sim" and own == WORLD and package != "sim" and floor > CORE:
        return f"the simulator imports pure parts only, not {target}"
    if floor > own:
        return f"imports go down: {source.module} (floor {own}) imports {target} (floor {floor})"
    if floor == own and package != own_package:
        return f"imports go sideways only inside one package: {source.module} imports {target}"
    return None


def upward_imports(house: House) -> list[str]:
    """Imports that go up, sideways into another package, or where they never may."""
    found = []
    for source in house.shipped():
        for item in house.imports(source):
            if item.target.split(".", 1)[0] in ("tests", "benchmarks"):
                found.append(f"{source.path}:{item.line}: shipped code imports {item.target}")
            reason = _refusal(source, item.target)
            if reason:
                found.append(f"{source.path}:{item.line}: {reason}")
    return found


def foreign_imports(house: House, standard_library: frozenset[str]) -> list[str]:
    """Imports of other people's packages where the table doesn't have them."""
    found = []
    for source in house.shipped():
        name = _longest(dict(THIRD_PARTY), source.module)
        allowed = THIRD_PARTY[name] if name else ()
        for item in house.imports(source):
            top = item.target.split(".", 1)[0]
            if top not in PACKAGES and top not in standard_library and top not in allowed:
                found.append(f"{source.path}:{item.line}: {source.module} may not import {top}")
    return found


def cycles(house: House) -> list[str]:
    """Rings of imports between modules, each told once."""
    graph = {
        source.module: sorted(
            {item.target for item in house.imports(source) if item.target in house.by_module}
            - {source.module}
        )
        for source in house.shipped()
    }
    found: list[str] = []
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append(" -> ".join([*path[path.index(module) :], module]))
        elif module not in done:
            for target in graph.get(module, ()):
                visit(target, [*path, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])
    return found
