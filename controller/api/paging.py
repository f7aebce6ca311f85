"""Pages: opaque cursors and the bounds of lists.

Rule: a cursor is the position of the last item given, not a number of items, so rows
that appear or vanish between two pages neither repeat nor hide others. It is opaque to
clients and checked here; it carries no secret and grants nothing.
"""

from __future__ import annotations

import base64
import binascii

from controller.api.problems import HttpProblem

LIMIT = 100
LIMIT_MAX = 1_000
CURSOR_CHARS_MAX = 400
_POSITION_CHARS_MAX = 200


def cursor_of(position: str) -> str:
    """The cursor that continues after `position`; base64url without padding."""
    return base64.urlsafe_b64encode(position.encode()).rstrip(b"=").decode()


def position_of(cursor: str | None) -> str:
    """The inverse; empty for no cursor. Raises `HttpProblem` for what `cursor_of` could not have made."""
    if not cursor:
        return ""
    try:
        position = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise _foreign() from None
    # Only the canonical spelling: two cursors for one place would be two cache keys, at best.
    readable = position.isprintable() and len(position) <= _POSITION_CHARS_MAX
    if not readable or cursor_of(position) != cursor:
        raise _foreign()
    return position


def _foreign() -> HttpProblem:
    return HttpProblem("invalid_cursor", "use `next` of the previous page as it stands", parameter="cursor")
