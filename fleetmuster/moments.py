"""Points in time as the API says them: RFC 3339 text, or milliseconds since 1970.

Rule: times are shown, never decided on. A clock of ours that is behind the controller's
makes an age of zero, not a negative one; what can't be read is shown as it came.
"""

from __future__ import annotations

import time

from fleetmuster.quantities import show_duration
from fleetmuster.records import Moment


def age(moment: Moment | None) -> str:
    """How long ago, as `3m12s`; empty if unknown."""
    at_ms = _milliseconds(moment)
    if at_ms is None:
        return str(moment or "")
    return show_duration(max(0, int(time.time() * 1000) - at_ms))


def stamp(moment: Moment | None) -> str:
    """The point itself, UTC, to the millisecond; empty if unknown."""
    at_ms = _milliseconds(moment)
    if at_ms is None:
        return str(moment or "")
    from datetime import UTC, datetime

    text = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _milliseconds(moment: Moment | None) -> int | None:
    if moment is None or moment == "":
        return None
    try:
        if isinstance(moment, int):
            return moment if 0 < moment < 10**14 else None
        from datetime import datetime

        return int(datetime.fromisoformat(moment).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
