"""Tables of placement for the documents: what a policy is good for."""

from __future__ import annotations

from controller.scheduler.policies import ADAPTIVE, ADAPTIVE_BUSY, ADAPTIVE_FULL, DEFAULT, POLICIES


def policy_table() -> str:
    """Every name that a job or a fleet may say, with its line."""
    says = {name: policy.says for name, policy in POLICIES.items()}
    says[ADAPTIVE] = (
        f"by what is reserved of the fleet: `spread` below {ADAPTIVE_BUSY:.0%}, `balanced`, "
        f"`fragmentation` from {ADAPTIVE_FULL:.0%}"
    )
    rows = [f"| `{name}`{' (default)' * (name == DEFAULT)} | {text} |" for name, text in says.items()]
    return "\n".join(["| policy | chooses |", "|---|---|", *rows])
