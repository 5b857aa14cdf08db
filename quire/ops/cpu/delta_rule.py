"""The gated delta rule by the native library.

Its definition is in `ops.delta_rule`; the kernel is csrc/ops/delta_rule.cpp.
"""

from __future__ import annotations

import ctypes

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.states import state_fields
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, floats, plane
from quire.ops.delta_rule import DeltaRule, Forgetting
from quire.ops.registry import register
from quire.ops.state import StatePlan, StateView


@register
class DeltaRuleCpu(RowProvider):
    op = "delta_rule"

    def native(
        self,
        qkv: torch.Tensor,
        decay: torch.Tensor | None,
        strength: torch.Tensor | None,
        rule: DeltaRule,
        forgetting: Forgetting,
        view: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes. Raises TypeError if a tensor is not of qkv's dtype."""
        for other in (decay, strength, out):
            if other is not None and other.dtype is not qkv.dtype:
                raise TypeError(f"delta_rule takes one dtype, not {qkv.dtype} and {other.dtype}")
        bias = forgetting.bias
        return NUMBERS["delta_rule"], STRUCTS["delta_rule"](
            qkv=qkv.data_ptr(),
            decay=None if decay is None else decay.data_ptr(),
            strength=None if strength is None else strength.data_ptr(),
            rate=floats(forgetting.rate),
            bias=None if bias is None else floats(bias),
            out=out.data_ptr(),
            **state_fields(view, plan),
            qkv_stride=plane(qkv)[2],
            decay_stride=0 if decay is None else plane(decay)[2],
            strength_stride=0 if strength is None else plane(strength)[2],
            out_stride=out.stride(0),
            Hk=rule.key_heads,
            H=rule.heads,
            Dk=rule.key_size,
            Dv=rule.value_size,
            scale=rule.scale,
            strength_scale=rule.strength,
            channels=forgetting.by_channel,
            unit=rule.unit,
            corrects=rule.corrects,
            in_turns=rule.in_turns,
            dtype=CODES[qkv.dtype],
            bound=rule.bound,
        )

    def run(
        self,
        qkv: torch.Tensor,
        decay: torch.Tensor | None,
        strength: torch.Tensor | None,
        rule: DeltaRule,
        forgetting: Forgetting,
        view: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """Writes the answers [T, H, Dv] of packed tokens, rounded once, and their matrices into `view`.

        qkv       [T, 2 Hk Dk + H Dv]: all queries, all keys, all values.
        decay     [T, H], or [T, H * Dk], or None, as `forgetting` has it; strength [T, H] or None.
        view      matrices [H, Dk, Dv] float32; plan says whose token goes on from which block.
        All in one dtype, computed in float32, one token after the other. `out` may not be qkv.
        """
        native().run(*self.native(qkv, decay, strength, rule, forgetting, view, plan, out=out))
        return out
