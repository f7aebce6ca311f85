"""Pieces of output to one stream: overlaps are read once, a gap is shown as a gap.

Chunks may be stored in any order and more than once under other cuts (an agent that lost
its place cuts anew); bytes at the same offset are the same bytes. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from controller.store.base import OUTPUT_PIECE_BYTES_MAX, OutputPiece

Chunk = tuple[int, bytes]
"""(offset, data)."""


def assemble(chunks: Iterable[Chunk], end: int | None, offset: int, limit: int) -> OutputPiece:
    """The piece from `offset` on.

    `chunks`: in order of offset, from any place at or before the one that covers `offset`.
    `end`: where the stream ends, None while unknown.
    """
    limit = max(0, min(limit, OUTPUT_PIECE_BYTES_MAX))
    parts: list[bytes] = []
    start = at = offset
    for begin, data in chunks:
        if begin + len(data) <= at:
            continue
        if begin > at:
            if parts:
                break
            start = at = begin
        part = data[at - begin :][: limit - (at - start)]
        parts.append(part)
        at += len(part)
        if at - start >= limit:
            break
    if limit == 0:
        start = at = offset
    elif not parts and end is not None and end > at:
        start = at = end  # the last piece came, what is before it did not: the rest is one gap
    return OutputPiece(b"".join(parts), at, end is not None and at >= end, start - offset)
