"""Attention that sees few blocks of the cached tokens, by the native library.

Definitions are in `ops.block_picks`; kernels are csrc/ops/block_picks.cpp, and csrc/ops/attention.cpp, which walks
the tokens of picked blocks as if there were no others.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from quire.ops.cpu.attention import CacheProvider, CpuCache, CpuPlan, PagedAttentionCpu
from quire.ops.cpu.library import native
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.registry import Signature, register

_ATTENTION = PagedAttentionCpu()
_STEP = 16
"""Tokens that lie side by side in a cache and are read at once."""


@register
class PickBlocksCpu(CacheProvider):
    op = "pick_blocks"

    def native(
        self,
        q: torch.Tensor,
        cache: CpuCache,
        plan: CpuPlan,
        *,
        size: int,
        local: int,
        picks: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again."""
        plan.check()
        cache.check("q", q)
        args: Any = STRUCTS["pick_blocks"](
            **cache.sizes(), H=q.shape[1], size=size, local=local, pick_count=picks.shape[2]
        )
        args.q, args.plan, args.picks = q.data_ptr(), plan.address, _address(picks)
        args.q_stride, args.q_head_stride, _ = q.stride()
        return NUMBERS["pick_blocks"], args

    def run(
        self,
        q: torch.Tensor,
        cache: CpuCache,
        plan: CpuPlan,
        *,
        size: int,
        local: int,
        picks: torch.Tensor,
    ) -> torch.Tensor:
        """As the reference: writes picks [T, H, k] int32, contiguous, for q [T, H, D] in the cache's dtype."""
        native().run(*self.native(q, cache, plan, size=size, local=local, picks=picks))
        return picks


@register
class BlockAttentionCpu(CacheProvider):
    op = "block_attention"

    def accepts(self, signature: Signature) -> str | None:
        size = signature.sizes.get("S", _STEP)
        if size % _STEP:
            return f"it reads {_STEP} neighbouring tokens at once, and blocks have {size}"
        return super().accepts(signature)

    def native(
        self,
        q: torch.Tensor,
        picks: torch.Tensor,
        cache: CpuCache,
        plan: CpuPlan,
        *,
        size: int,
        scale: float,
        value_scale: float = 1.0,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again."""
        if size % _STEP:
            raise ValueError(f"blocks of {size} tokens: the size must be a multiple of {_STEP}")
        number, args = _ATTENTION.native(
            q, cache, plan, scale=scale, value_scale=value_scale, out=out
        )
        args.picks, args.pick_count, args.pick_size = _address(picks), picks.shape[2], size
        return number, args

    def run(
        self,
        q: torch.Tensor,
        picks: torch.Tensor,
        cache: CpuCache,
        plan: CpuPlan,
        *,
        size: int,
        scale: float,
        value_scale: float = 1.0,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the reference, with the roundings of `paged_attention` here.

        picks  [T, K, k] int32, contiguous; size a multiple of 16.
        """
        if out is None:
            out = q.new_empty(*q.shape[:2], cache.value_size)
        native().run(
            *self.native(
                q, picks, cache, plan, size=size, scale=scale, value_scale=value_scale, out=out
            )
        )
        return out


def _address(picks: torch.Tensor) -> int:
    if picks.dtype != torch.int32 or not picks.is_contiguous():
        raise ValueError(f"picks are {picks.dtype}: they must be contiguous int32")
    return picks.data_ptr()
