"""The bound of an attempt's size in a document is one, and not a wild one."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from controller.core.claims import NAME_BYTES_MAX
from controller.core.documents import entry
from controller.core.jobs import entry_bytes
from controller.core.ledger import Attempt, Job
from controller.core.records import AttemptRow, AttemptState, JobRow, JobState, TaskSpec
from protocol import limits
from protocol.codec import encode
from protocol.messages import Assignments, Revision
from protocol.resources import Resources
from protocol.tasks import Guarantee, JobKind

texts = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=60)
amounts = st.integers(0, limits.MIB_MAX)


@given(
    st.lists(texts, min_size=1, max_size=8),
    st.dictionaries(texts, texts, max_size=4),
    st.tuples(*[amounts] * 3, st.integers(0, 16_000), *[amounts] * 3),
)
def test_an_entry_is_never_larger_than_its_bound(
    command: list[str], env: dict[str, str], of: tuple[int, ...]
) -> None:
    spec = TaskSpec("process", tuple(command), env, Resources(*of), (), limits.DURATION_MS_MAX, 600_000)
    row = JobRow(
        "j" + "0" * 15, "n", JobKind.BATCH, 100_000, 1, Guarantee.AT_LEAST_ONE, 3, 0, limits.LEASE_MS_MAX,
        spec, JobState.OPEN, "run", 0, 0, "t",
    )  # fmt: skip
    names = [f"{at:x}" + "n" * (NAME_BYTES_MAX - 1) for at in range(-(-of[3] // 1_000))]
    given = " ".join(f"{name}=1000" for name in names)
    longest = AttemptRow(
        f"{row.id}.99999", 2**53, "d", AttemptState.ASSIGNED, 1, 0, 0, None, 0, "", 0, 0, 0, given
    )
    one = entry(Attempt(longest, Job(row, 0), 0))
    size = len(encode(Assignments(Revision(2**40, 2**40), (one,))))
    assert size <= entry_bytes(row) <= size + 2 * limits.TOPIC_BYTES_MAX
    second = replace(one, attempt=1)
    both = len(encode(Assignments(Revision(2**40, 2**40), (one, second))))
    assert both <= 2 * entry_bytes(row)
