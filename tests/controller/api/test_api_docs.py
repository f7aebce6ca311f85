"""The examples of docs/api.md, in their order, against the API; its table of errors against the code's."""

from __future__ import annotations

import json
import re
from pathlib import Path

from controller.api.problems import CODES
from controller.scheduler.policies import NAMES

PAGE = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```http\n(.*?)```", PAGE, re.DOTALL)
ANY = "…"


def parts(block: str) -> tuple[str, dict[str, str], str]:
    head, _, body = block.partition("\n\n")
    first, *lines = head.strip().splitlines()
    return first, dict(line.split(": ", 1) for line in lines), body.strip()


def same(shown: object, got: object, where: str = "") -> None:
    """Whether the answer is what the page shows; `…` is anything."""
    if shown == ANY:
        return
    if isinstance(shown, dict):
        assert isinstance(got, dict) and set(shown) == set(got), where
        for key in shown:
            same(shown[key], got[key], f"{where}/{key}")
    elif isinstance(shown, list):
        assert isinstance(got, list) and len(shown) == len(got), where
        for index, item in enumerate(shown):
            same(item, got[index], f"{where}/{index}")
    else:
        assert shown == got, where


def test_every_example_does_what_it_shows(api):
    assert len(BLOCKS) >= 20 and len(BLOCKS) % 2 == 0
    job = ""
    for asked, answered in zip(BLOCKS[::2], BLOCKS[1::2], strict=True):
        request, headers, body = parts(asked.replace("$JOB", job))
        method, path = request.split()
        answer = api.request(method, path, headers=headers, content=body.encode())
        if answer.status_code == 201 and path.endswith("/jobs"):
            job = answer.json()["id"]
        status, shown_headers, shown = parts(answered.replace("$JOB", job))
        assert status == f"HTTP/1.1 {answer.status_code}", (request, answer.text)
        for name, value in shown_headers.items():
            assert answer.headers[name] == value, request
        if shown:
            same(json.loads(shown), answer.json(), request)


def test_the_table_of_errors_is_that_of_the_code():
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \|", PAGE, re.MULTILINE)
    assert {code: int(status) for code, status in rows} == {c: kind.status for c, kind in CODES.items()}


def test_the_page_names_every_policy_and_no_other():
    sentence = PAGE.split("Policies are ", 1)[1].split(", told in", 1)[0]
    assert tuple(re.findall(r"`(\w+)`", sentence)) == NAMES
