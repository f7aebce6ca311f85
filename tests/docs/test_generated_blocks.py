"""What the documents say of the wire is what the code does."""

from __future__ import annotations

import re

import pytest
from generated_blocks import BLOCKS, DOCUMENTS, ROOT, blocks_of

RULES = "S1 S2 S3 S4 D1 D2 D3 D4 D5 D6 L1 L2 L3 L4 L5 L6 L7 C1 C2 C3 C4 C5".split()
AGAIN = "python tests/docs/generated_blocks.py"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_document_holds_its_generated_blocks(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert set(blocks_of(text)) == set(DOCUMENTS[document])


@pytest.mark.parametrize(("document", "name"), [(d, n) for d, names in DOCUMENTS.items() for n in names])
def test_a_generated_block_equals_the_code(document: str, name: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    assert blocks_of(text)[name] == BLOCKS[name](), f"the code has changed; write it anew: {AGAIN}"


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_stands_once_in_the_specification(rule: str) -> None:
    text = (ROOT / "protocol/DESIGN.md").read_text(encoding="utf-8")
    assert len(re.findall(rf"^### {rule} ", text, re.MULTILINE)) == 1


def test_every_invariant_stands_in_the_specification() -> None:
    text = (ROOT / "protocol/DESIGN.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| I(\d+) \|", text, re.MULTILINE) == [str(n) for n in range(1, 16)]
