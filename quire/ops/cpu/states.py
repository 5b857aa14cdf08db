"""What native operations on recurrent states read of a view and a plan.

What those are is in `ops.state`; the kernels' side is csrc/ops/states.h.
"""

from __future__ import annotations

from quire.ops.state import StatePlan, StateView


def state_fields(view: StateView, plan: StatePlan) -> dict[str, int]:
    """The fields of an argument struct that every operation on states has."""
    return {
        "plan": plan.address,
        "states": view.address,
        "slab_bytes": view.slab_bytes,
        "block_bytes": view.block_bytes,
        "blocks_per_slab": view.blocks_per_slab,
    }
