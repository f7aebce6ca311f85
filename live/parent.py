"""Ending with one's parent: a supervisor that is killed takes its children along.

The child asks the kernel itself (`PR_SET_PDEATHSIG`), after exec, so no code runs between
fork and exec in a parent that has threads. Only where the starter asked for it.
"""

from __future__ import annotations

import ctypes
import os
import signal

ASKED = "FM_DIE_WITH_PARENT"
"""Environment variable: the parent's process id."""
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """SIGTERM for this process when its parent dies, if the environment asks for it."""
    parent = os.environ.pop(ASKED, "")
    if not parent:
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if str(os.getppid()) != parent:  # it died before we asked
        raise SystemExit(1)
