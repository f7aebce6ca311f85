"""Ids of a cron job's runs: in order of time among all job ids, and the same only for the same run.

A list of jobs is in the order of their ids, so a run's begins as every job's does, with `j` and
its time. The rest of the cron job's id and the number of the run make it unique; nothing of it is
chance, because the core rolls no dice for identities.
Rejected: the cron job's id in front (a run of today would stand among the jobs of last year).
"""

from __future__ import annotations

_DIGITS = "0123456789abcdefghijklmnopqrstuv"
TIME_CHARS = 9
"""45 bits of milliseconds: until the year 3084."""


def run_id(job: str, number: int, wall_ms: int) -> str:
    """`number` counts the runs of a job from 1."""
    return f"j{base32(wall_ms, TIME_CHARS)}{job.removeprefix('j')}r{number}"


def base32(number: int, chars: int) -> str:
    """The last `5 * chars` bits, in digits that sort as the numbers do."""
    return "".join(_DIGITS[number >> shift & 31] for shift in range(5 * (chars - 1), -1, -5))
