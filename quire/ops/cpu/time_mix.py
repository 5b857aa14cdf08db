"""Blends with the token before and decaying exponentials by the native library.

Definitions are in `ops.time_mix`; kernels are csrc/ops/time_mix.cpp. Vectors and matrices that are no
activations are contiguous float32.
"""

from __future__ import annotations

import ctypes

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.states import state_fields
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider, floats, plane
from quire.ops.registry import register
from quire.ops.state import StatePlan, StateView

_SHIFT, _Shift = NUMBERS["token_shift"], STRUCTS["token_shift"]
_WKV, _Wkv = NUMBERS["wkv"], STRUCTS["wkv"]


@register
class TokenShiftCpu(RowProvider):
    op = "token_shift"

    def native(
        self,
        x: torch.Tensor,
        shares: torch.Tensor,
        before: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again.

        Raises ValueError if the numbers of a token do not lie side by side.
        """
        return _SHIFT, _Shift(
            x=x.data_ptr(),
            shares=floats(shares),
            out=out.data_ptr(),
            x_stride=plane(x)[2],
            out_stride=plane(out.flatten(1))[2],
            C=shares.shape[1],
            M=shares.shape[0],
            dtype=CODES[x.dtype],
            **state_fields(before, plan),
        )

    def run(
        self,
        x: torch.Tensor,
        shares: torch.Tensor,
        before: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """As the reference; `out` in x's dtype, each token's M blends side by side."""
        native().run(*self.native(x, shares, before, plan, out=out))
        return out


@register
class WkvCpu(RowProvider):
    op = "wkv"

    def native(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        gate: torch.Tensor,
        decay: torch.Tensor,
        first: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again.

        Raises ValueError if the numbers of a token do not lie side by side.
        """
        return _WKV, _Wkv(
            key=key.data_ptr(),
            value=value.data_ptr(),
            gate=gate.data_ptr(),
            decay=floats(decay),
            first=floats(first),
            out=out.data_ptr(),
            key_stride=plane(key)[2],
            value_stride=plane(value)[2],
            gate_stride=plane(gate)[2],
            out_stride=plane(out)[2],
            D=decay.shape[0],
            dtype=CODES[key.dtype],
            **state_fields(states, plan),
        )

    def run(
        self,
        key: torch.Tensor,
        value: torch.Tensor,
        gate: torch.Tensor,
        decay: torch.Tensor,
        first: torch.Tensor,
        states: StateView,
        plan: StatePlan,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """As the reference; every activation in the key's dtype."""
        native().run(*self.native(key, value, gate, decay, first, states, plan, out=out))
        return out
