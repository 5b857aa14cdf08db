"""The rules of who comes first and how long a piece of a prompt may be.

Carries out nothing: `scheduler.scheduler` does.
"""

from __future__ import annotations

from quire.protocol.errors import SettingsError

POLICIES = ("fcfs", "priority")


def check_settings(policy: str, **limits: int) -> None:
    """Raises SettingsError for a policy that is not known, or a limit below 1."""
    for name, value in limits.items():
        if value < 1:
            raise SettingsError(f"{name} is {value}; it must be at least 1")
    if policy not in POLICIES:
        raise SettingsError(
            f"scheduling_policy is {policy!r}; it must be one of {', '.join(POLICIES)}"
        )


def rank_of(policy: str, priority: int) -> int:
    """What is compared before the order of arrival; lower is served first."""
    return priority if policy == "priority" else 0


def chunk_len(start: int, wanted: int, budget: int, longest: int, block_size: int) -> int:
    """Tokens that a sequence computes in a step, from position `start`, of `wanted` known ones.

    budget   what is left of the step, at least 1.
    longest  longest piece of one prompt, 0 for no limit.
    A piece that leaves known tokens over ends on a block boundary if a whole block fits into what
    is allowed: then its blocks are full, and others can find them.
    """
    allowed = budget if longest <= 0 else min(budget, longest)
    if wanted <= allowed:
        return wanted
    if allowed < block_size:
        return allowed
    return (start + allowed) // block_size * block_size - start
