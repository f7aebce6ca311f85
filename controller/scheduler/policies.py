"""Policies: a name for a mixture of scores. A policy is one entry in this table."""

from __future__ import annotations

from controller.scheduler import scores

POLICIES: dict[str, dict[str, tuple[scores.Score, float]]] = {
    "spread": {"room": (scores.room, 1.0)},
    "best_fit": {"fit": (scores.fit, 1.0)},
}
"""Policy -> part -> (criterion, weight); weights sum to 1."""
