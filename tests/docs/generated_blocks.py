"""Blocks of the documents that are made from the code, so that they can't rot.

`python tests/docs/generated_blocks.py` writes them; the test beside this file compares. A
block stands between `<!-- generated: NAME -->` and `<!-- end -->` in the document.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

import placement_tables  # noqa: E402
import sim_tables  # noqa: E402
import wire_conversation  # noqa: E402
import wire_tables  # noqa: E402

BLOCKS: dict[str, Callable[[], str]] = {
    "channels": wire_tables.channel_table,
    "fleet channels": wire_tables.fleet_table,
    "messages": wire_tables.message_tables,
    "rows": wire_tables.row_table,
    "choices": wire_tables.choice_table,
    "garbage": wire_tables.garbage_table,
    "limits": wire_tables.limit_table,
    "task diagram": wire_tables.task_diagram,
    "task moves": wire_tables.task_reasons,
    "run diagram": wire_tables.run_diagram,
    "run moves": wire_tables.run_reasons,
    "reservation diagram": wire_tables.reservation_diagram,
    "reservation moves": wire_tables.reservation_reasons,
    "conversation": wire_conversation.told_in_full,
    "policies": placement_tables.policy_table,
    "sim exits": sim_tables.exit_table,
    "sim faults": sim_tables.fault_table,
    "sim outside": sim_tables.outside_table,
    "sim invariants": sim_tables.invariant_table,
}
DOCUMENTS = {
    "protocol/DESIGN.md": (
        "channels", "fleet channels", "messages", "rows", "choices", "garbage", "limits",
        "task diagram", "task moves", "run diagram", "run moves", "conversation",
    ),
    "controller/DESIGN.md": ("task diagram", "reservation diagram", "reservation moves"),
    "docs/conditions.md": ("policies",),
    "docs/simulation.md": ("sim exits", "sim faults", "sim outside", "sim invariants"),
}  # fmt: skip
_BLOCK = re.compile(r"<!-- generated: (?P<name>[a-z ]+) -->\n(?P<body>.*?)<!-- end -->", re.DOTALL)


def blocks_of(text: str) -> dict[str, str]:
    """The generated blocks of a document by name, as they stand in it."""
    return {m["name"]: m["body"].strip() for m in _BLOCK.finditer(text)}


def renewed(text: str) -> str:
    """The document with every block made anew."""
    return _BLOCK.sub(lambda m: f"<!-- generated: {m['name']} -->\n{BLOCKS[m['name']]()}\n<!-- end -->", text)


def main() -> None:
    for name in DOCUMENTS:
        path = ROOT / name
        path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
