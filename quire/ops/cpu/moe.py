"""Routing and experts by the native library.

Definitions are in `ops.moe`; kernels are csrc/ops/moe.cpp.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace

import torch

from quire.ops.cpu import quantized
from quire.ops.cpu.library import native, refuses
from quire.ops.cpu.memory import Take, allocate
from quire.ops.cpu.structs import EXPERT_ACTS, NUMBERS, SCORINGS, STRUCTS
from quire.ops.cpu.views import CODES, RowProvider
from quire.ops.formats import BLOCK_COLUMNS, PLAIN, Format, expert_formats, parse
from quire.ops.moe import ExpertSizes, RouteRule
from quire.ops.quantized import QuantizedWeight, SuperBlocks
from quire.ops.registry import Provider, Signature, register

_MOST_CHOSEN = 32
_DEPTH = 32  # what K is rounded up to


@register
class RouteCpu(Provider):
    op = "route"
    name = "cpu"

    def accepts(self, signature: Signature) -> str | None:
        chosen = signature.sizes.get("K", 1)
        if chosen > _MOST_CHOSEN:
            return f"it chooses at most {_MOST_CHOSEN} experts, not {chosen}"
        return refuses(signature)

    def native(
        self,
        logits: torch.Tensor,
        rule: RouteRule,
        *,
        bias: torch.Tensor | None = None,
        ids: torch.Tensor,
        weights: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        return NUMBERS["route"], STRUCTS["route"](
            logits=logits.data_ptr(),
            bias=None if bias is None else bias.data_ptr(),
            ids=ids.data_ptr(),
            weights=weights.data_ptr(),
            rows=logits.shape[0],
            E=logits.shape[1],
            stride=logits.stride(0),
            top_k=rule.top_k,
            groups=rule.groups,
            top_groups=rule.top_groups,
            group_best=rule.group_best,
            scale=rule.scale,
            jitter=rule.jitter,
            scoring=SCORINGS[rule.scoring],
            normalize=rule.normalize,
            dtype=CODES[logits.dtype],
        )

    def run(
        self,
        logits: torch.Tensor,
        rule: RouteRule,
        *,
        bias: torch.Tensor | None = None,
        ids: torch.Tensor,
        weights: torch.Tensor,
    ) -> None:
        """Writes ids [T, k] int32 and weights [T, k] float32, contiguous, for logits [T, E].

        bias [E] float32. A row whose logits are not numbers gets experts in order with weights NaN.
        """
        native().run(*self.native(logits, rule, bias=bias, ids=ids, weights=weights))


@register
class RouteSparseCpu(RouteCpu):
    op = "route_sparse"


@register
class WeighSetsCpu(RowProvider):
    op = "weigh_sets"

    def native(
        self, x: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor, *, out: torch.Tensor
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes. Raises ValueError if x or out is not contiguous."""
        if not (x.is_contiguous() and out.is_contiguous() and x.dtype is out.dtype):
            raise ValueError(
                f"weigh_sets got strides {x.stride()} and {out.stride()} of {x.dtype} and {out.dtype}; "
                "it takes contiguous tensors of one dtype: call contiguous() before"
            )
        return NUMBERS["weigh_sets"], STRUCTS["weigh_sets"](
            x=x.data_ptr(),
            ids=ids.data_ptr(),
            weights=weights.data_ptr(),
            out=out.data_ptr(),
            rows=x.shape[0],
            heads=x.shape[1],
            E=x.shape[2],
            D=x.shape[3],
            top_k=ids.shape[1],
            dtype=CODES[x.dtype],
        )

    def run(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        *,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """x[t, :, e] times the weight of e among ids[t], or 0 where e is not there; one rounding. `out` may be x.

        x [T, K, E, D]; ids [T, k] int32, no two of a token alike, and weights [T, k] float32, contiguous.
        """
        out = torch.empty_like(x) if out is None else out
        native().run(*self.native(x, ids, weights, out=out))
        return out


@dataclass(frozen=True)
class PackedExperts:
    """The experts' weights in blocks of 32 columns, and all of a call's arguments but the rows'.

    gate_up  [E, bytes]: of gate and up, whose blocks take turns, or of up alone; down  [E, bytes].
    biases   of gate_up [E, its columns], in the order of the blocks, and of down [E, columns], float32.
    """

    sizes: ExpertSizes
    format: Format
    dtype: torch.dtype
    gate_up: torch.Tensor
    down: torch.Tensor
    biases: tuple[torch.Tensor, torch.Tensor] | None
    args: ctypes.Structure


@register
class ExpertsCpu(Provider):
    op = "experts"
    name = "cpu"
    copies_weights = True

    def accepts(self, signature: Signature) -> str | None:
        sizes = signature.sizes
        return quantized.refuses_format(signature, sizes.get("C", 0), sizes.get("F", 0))

    def room(
        self,
        sizes: ExpertSizes,
        *,
        dtype: torch.dtype,
        format: str,
        bias: bool,
        take: Take = allocate,
    ) -> PackedExperts:
        """The experts' weights in memory of `take`, which is filled or `put` fills."""
        stored = parse(format)
        of_gate_up, of_down = expert_formats(stored)
        width, size = sizes.halves * _whole(sizes.width), _whole(sizes.size)
        each = dtype.itemsize
        gate_up = take(sizes.num_experts * _bytes(of_gate_up, width, sizes.size, each))
        down = take(sizes.num_experts * _bytes(of_down, sizes.size, sizes.width, each))
        gate_up, down = gate_up.view(sizes.num_experts, -1), down.view(sizes.num_experts, -1)
        biases = None
        if bias:
            biases = (
                torch.zeros(sizes.num_experts, width),
                torch.zeros(sizes.num_experts, size),
            )
        args = STRUCTS["experts"](
            gate_up=gate_up.data_ptr(),
            down=down.data_ptr(),
            gate_up_bias=None if biases is None else biases[0].data_ptr(),
            down_bias=None if biases is None else biases[1].data_ptr(),
            E=sizes.num_experts,
            C=sizes.size,
            F=sizes.width,
            gate_up_bytes=gate_up.shape[1],
            down_bytes=down.shape[1],
            limit=sizes.limit,
            gate_limit=sizes.gate_limit or sizes.limit,
            weigh_inputs=sizes.weigh_inputs,
            halves=sizes.halves,
            act=EXPERT_ACTS[sizes.act],
            dtype=CODES[dtype],
            format=quantized.code_of(stored),
            group=stored.group,
        )
        return PackedExperts(sizes, stored, dtype, gate_up, down, biases, args)

    def parts(self, packed: PackedExperts) -> list[torch.Tensor]:
        """What packed weights without biases are made of, uint8 [n] each."""
        return [packed.gate_up.view(-1), packed.down.view(-1)]

    def put(
        self,
        packed: PackedExperts,
        expert: int,
        gate_up: torch.Tensor | QuantizedWeight,
        down: torch.Tensor | QuantizedWeight,
        gate_up_bias: torch.Tensor | None = None,
        down_bias: torch.Tensor | None = None,
    ) -> None:
        """Takes one expert's weights: gate_up [2F, C], the gate first; down [C, F]; biases [2F] and [C].

        Of experts without a gate gate_up is up alone, [F, C] and [F].
        """
        is_gated = packed.sizes.gated
        if isinstance(gate_up, QuantizedWeight) and isinstance(down, QuantizedWeight):
            quantized.pack_into(
                packed.gate_up[expert], _stored_in_turns(gate_up) if is_gated else gate_up
            )
            quantized.pack_into(packed.down[expert], down)
        elif isinstance(gate_up, torch.Tensor) and isinstance(down, torch.Tensor):
            _pack_plain(packed.gate_up[expert], _in_turns(gate_up) if is_gated else gate_up)
            _pack_plain(packed.down[expert], down)
        else:
            raise TypeError("an expert's weights must both be of one format")
        if packed.biases is not None and gate_up_bias is not None and down_bias is not None:
            wide = _in_turns(gate_up_bias.to(torch.float32)) if is_gated else gate_up_bias
            packed.biases[0][expert, : wide.shape[0]] = wide
            packed.biases[1][expert, : down_bias.shape[0]] = down_bias

    def native(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        packed: PackedExperts,
        *,
        out: torch.Tensor,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes."""
        args = STRUCTS["experts"].from_buffer_copy(packed.args)
        args.x, args.out = x.data_ptr(), out.data_ptr()
        args.ids, args.weights = ids.data_ptr(), weights.data_ptr()
        args.rows, args.top_k = ids.shape
        args.x_stride, args.out_stride = x.stride(0), out.stride(0)
        return NUMBERS["experts"], args

    def run(
        self,
        x: torch.Tensor,
        ids: torch.Tensor,
        weights: torch.Tensor,
        packed: PackedExperts,
        *,
        out: torch.Tensor,
    ) -> torch.Tensor:
        """The sum over a token's experts, in their order, of weight * down(act(gate(x)) * up(x)).

        x [T, C]; ids [T, k] int32 and weights [T, k] float32, contiguous; out [T, C], which may be x. Ids from E on
        are of experts that are not here.
        """
        native().run(*self.native(x, ids, weights, packed, out=out))
        return out


def _whole(columns: int) -> int:
    return -(-columns // BLOCK_COLUMNS) * BLOCK_COLUMNS


def _bytes(format: Format, columns: int, depth: int, each: int) -> int:
    """Bytes of a packed weight [columns, depth]."""
    if format == PLAIN:
        return _whole(columns) * -(-depth // _DEPTH) * _DEPTH * each
    return format.num_bytes(columns, depth, each)


def _in_turns(both: torch.Tensor, nothing: int = 0) -> torch.Tensor:
    """Rows [2F, ...] of gate, then up, as 32 of gate, 32 of up and so on; missing ones are `nothing`."""
    width = both.shape[0] // 2
    blocks = -(-width // BLOCK_COLUMNS)
    turned = both.new_empty(blocks, 2, BLOCK_COLUMNS, *both.shape[1:])
    if width % BLOCK_COLUMNS:
        turned[-1] = nothing
    for place, half in enumerate((both[:width], both[width:])):
        whole = width // BLOCK_COLUMNS
        turned[:whole, place] = half[: whole * BLOCK_COLUMNS].reshape(
            whole, BLOCK_COLUMNS, *both.shape[1:]
        )
        if width % BLOCK_COLUMNS:
            turned[-1, place, : width % BLOCK_COLUMNS] = half[whole * BLOCK_COLUMNS :]
    return turned.flatten(0, 2)


def _stored_in_turns(both: QuantizedWeight) -> QuantizedWeight:
    """`_in_turns` of a weight of fewer bits."""
    inner = both.inner
    if inner is not None:
        inner = SuperBlocks(*(_in_turns(x) for x in (inner.floors, inner.steps, inner.minima)))
    return replace(
        both,
        codes=_in_turns(both.codes, 8 if both.format.kind == "int4" else 0),
        scales=_in_turns(both.scales),
        zeros=None if both.zeros is None else _in_turns(both.zeros, 8),
        inner=inner,
    )


def _pack_plain(out: torch.Tensor, weight: torch.Tensor) -> None:
    """Weight [N, K] to its blocks in `out`, uint8."""
    if weight.stride(1) != 1:
        weight = weight.contiguous()
    args = STRUCTS["pack_linear"](
        weight=weight.data_ptr(),
        out=out.data_ptr(),
        N=weight.shape[0],
        K=weight.shape[1],
        stride=weight.stride(0),
        dtype=CODES[weight.dtype],
        format=0,
    )
    native().run(NUMBERS["pack_linear"], args)
