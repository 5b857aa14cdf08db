"""Carries out a program with our operations, in the place of `models.decoder`.

The steps' calls are made in `models.foreign.operations`; reading weights is `models.loading`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear, read_to_pack
from quire.models.decoder import CacheBinding
from quire.models.foreign.attend import Attend
from quire.models.foreign.operations import (
    Operations,
    Run,
    Values,
    embedding_of,
    filled,
    rope_key,
    torch_dtype,
)
from quire.models.foreign.program import Program, Register, Step
from quire.models.foreign.rooms import Layout, Rooms, is_turn, layout_of
from quire.models.foreign.torch_calls import function_of
from quire.models.spec import Attention, DecoderSpec
from quire.ops.attention import PAGED_ATTENTION
from quire.ops.elementwise import TO_FLOAT32
from quire.ops.foreign import TORCH
from quire.ops.registry import Table
from quire.quant.formats import PLAIN, CacheStorage, Format, Formats

_CHUNK = 4096  # positions of which tables are made at once


class ForeignDecoder:
    """A model of Transformers with its weights; the interface is `models.decoder.Decoder`'s.

    format  of weights of layers; head_format of the product that makes logits.
    """

    def __init__(
        self,
        table: Table,
        spec: DecoderSpec,
        *,
        dtype: torch.dtype,
        max_model_len: int,
        format: Formats = PLAIN,
        head_format: Formats = PLAIN,
        cache: CacheStorage,
    ) -> None:
        assert spec.program is not None
        self.spec = spec
        self.dtype = dtype
        self._layout: Layout = layout_of(spec.program, joined=isinstance(format, Format))
        self._program: Program = self._layout.program
        self._max_model_len = max_model_len
        self._table = table
        self._operations = Operations(
            table,
            dtype,
            self._layout.body_rooms.in_place,
            {name: one.shape[0] for name, one in self._program.weights.items() if one.shape},
        )
        self._operations.attends = [
            self._attend(index, layer.mixer, cache) for index, layer in enumerate(spec.layers)
        ]
        self.bindings = tuple(
            CacheBinding(index, mixer, attend.attend)
            for index, (mixer, attend) in enumerate(
                zip(spec.mixers, self._operations.attends, strict=True)
            )
        )
        self._make_linears(format, head_format)
        self._take = table.bind(TORCH, dtype_name(dtype))
        self._widen = table.bind(TO_FLOAT32, dtype_name(dtype), C=spec.vocab_size)
        self._edges: dict[int, torch.Tensor] = {}
        self._fixed: Values = {}
        self._body: list[Run] = []
        self._head: list[Run] = []

    def _attend(self, index: int, mixer: Any, cache: CacheStorage) -> Attend:
        assert isinstance(mixer, Attention)
        bound = self._table.bind(
            PAGED_ATTENTION,
            dtype_name(self.dtype),
            format=cache.format,
            H=mixer.num_heads,
            K=mixer.num_kv_heads,
            D=mixer.head_size,
            **({"bidirectional": True} if mixer.bidirectional else {}),
        )
        return Attend(index, bound, mixer, cache.scales.get(index))

    def _make_linears(self, format: Formats, head_format: Formats) -> None:
        weights = self._program.weights
        for names, biases in self._products():
            if names[0] in self._operations.linears:
                continue
            is_head = names[0] in ("head.weight", "embedding.weight")
            kept = PLAIN if weights[names[0]].group == "router" else format
            self._operations.linears[names[0]] = Linear(
                self._table,
                "head" if is_head else names[0].removesuffix(".weight"),
                in_size=weights[names[0]].shape[1],
                out_size=sum(weights[name].shape[0] for name in names),
                bias=biases[0] is not None,
                dtype=self.dtype,
                format=head_format if is_head else kept,
            )

    def _products(self) -> list[tuple[list[str], list[str | None]]]:
        """Weights and biases of each product, stacked ones together."""
        steps = (*self._layout.body, *self._layout.head)
        alone = [([one.args[1]], [one.args[2]]) for one in steps if one.op == "linear"]
        return alone + [(one.args[1], one.args[2]) for one in steps if one.op == "linears"]

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes every parameter once, packs it, and makes what follows from positions."""
        operations = self._operations
        products = {names[0]: (names, biases) for names, biases in self._products()}
        parts = {
            name
            for names, biases in products.values()
            for name in (*names[1:], *biases)
            if name is not None
        }
        embedded = {step.args[1] for step in self._layout.body if step.op == "embedding"}
        for name, weight in self._program.weights.items():
            if name in products and len(products[name][0]) > 1:
                self._load_stack(weights, *products[name])
            elif name in products:
                self._load_linear(weights, name, products[name][1][0], shared=name in embedded)
            elif name in embedded:
                bound = embedding_of(self._table, self.dtype, weight.shape)
                packed = bound.provider.pack(read_to_pack(weights, name, bound))
                operations.embeddings[name] = bound, packed
            elif name not in parts:
                operations.weights[name] = weights(name)
        for attend, line in zip(operations.attends, self._program.attention, strict=True):
            if line.sinks is not None:
                attend.sinks = operations.weights[line.sinks].to(torch.float32).contiguous()
        self._make_tables()
        self._body = [operations.run_of(step) for step in self._layout.body]
        self._head = [operations.run_of(step) for step in self._layout.head]

    def _load_stack(
        self,
        weights: Callable[[str], torch.Tensor],
        names: list[str],
        biases: list[str | None],
    ) -> None:
        """Packs weights one below the other."""
        table = self._program.weights
        num_rows, width = sum(table[name].shape[0] for name in names), table[names[0]].shape[1]
        both = torch.empty(num_rows, width, dtype=self.dtype)
        given = [one for one in biases if one is not None]
        bias = torch.empty(num_rows, dtype=self.dtype) if given else None
        start = 0
        for name in names:
            stop = start + table[name].shape[0]
            both[start:stop].copy_(weights(name))
            start = stop
        if bias is not None:
            start = 0
            for one in given:
                stop = start + table[one].shape[0]
                bias[start:stop].copy_(weights(one))
                start = stop
        self._operations.linears[names[0]].pack(both, bias)

    def _load_linear(
        self, weights: Callable[[str], torch.Tensor], name: str, bias: str | None, *, shared: bool
    ) -> None:
        linear = self._operations.linears[name]
        if not shared:
            weight = read_to_pack(weights, name, linear.product)
            linear.pack(weight, None if bias is None else weights(bias))
            return
        bound = embedding_of(self._table, self.dtype, self._program.weights[name].shape)
        weight = read_to_pack(weights, name, bound, linear.product)
        tied = getattr(weights, "tied", None)
        linear.pack(
            weight if tied is None else tied(weight), None if bias is None else weights(bias)
        )
        packed = bound.provider.share(linear.packed)
        if packed is None:
            packed = bound.provider.pack(weight)
        self._operations.embeddings[name] = bound, packed

    def _make_tables(self) -> None:
        """Carries out what depends on positions for all of them, some at a time."""
        program, layout = self._program, self._layout
        self._fixed = {
            number: torch.tensor(
                one.values,
                dtype=torch.float64 if "float" in one.dtype or one.dtype == "model" else None,
            )
            .to(torch_dtype(one.dtype, self.dtype))
            .view(one.shape)
            for number, one in program.constants.items()
        }
        turns = {rope_key(step) for step in layout.body if is_turn(step)}
        wanted = {*layout.edges, *(number for cos, sin, _ in turns for number in (cos, sin))}
        parts: dict[int, list[torch.Tensor]] = {number: [] for number in wanted}
        for start in range(0, self._max_model_len, _CHUNK):
            stop = min(start + _CHUNK, self._max_model_len)
            values = {1: torch.arange(start, stop)[None], **self._fixed}
            for step in layout.positional:
                self._evaluate(step, values, stop - start)
            for number in wanted:
                axis = program.registers[number].token_axis
                parts[number].append(
                    values[number] if axis is None else values[number].movedim(axis, 0)
                )
        for number in wanted:
            if program.registers[number].token_axis is None:
                self._fixed[number] = parts[number][0].contiguous()
            else:
                self._edges[number] = torch.cat(parts[number]).contiguous()
        for cos, sin, where in turns:
            sides = [_pairs(self._edges[one].flatten(1), where) for one in (cos, sin)]
            self._operations.ropes[cos, sin, where] = torch.cat(sides, dim=1).float().contiguous()
        self._edges = {
            number: self._edges[number] for number in layout.edges if number in self._edges
        }

    def _evaluate(self, step: Step, values: Values, num_tokens: int) -> None:
        arguments = partial(
            filled,
            values=values,
            num_tokens=num_tokens,
            dtype=self.dtype,
            weights=self._operations.weights,
        )
        made = function_of(step.op)(*arguments(step.args), **arguments(step.kwargs))
        several = list(made) if isinstance(made, list | tuple) else [made]
        values.update(zip(step.outs, several, strict=True))

    def forward(self, ctx: ForwardContext) -> torch.Tensor:
        """What logits are made of [T, C], the final norm applied; ctx.embeds must be None."""
        num_tokens, program = ctx.num_tokens, self._program
        base = program.registers[program.hidden].base
        kept = self._take_register(ctx, base, num_tokens)
        mark = ctx.arena.mark()
        values: Values = {0: ctx.ids[None], 1: ctx.positions, **self._fixed}
        room = self._rooms(ctx, self._layout.body_rooms, num_tokens, {base: kept})
        for number, table in self._edges.items():
            values[number] = self._rows(number, table, ctx, room)
        for run in self._body:
            run(values, num_tokens, ctx, room)
        result = values[program.hidden].view(num_tokens, -1)
        ctx.arena.release(mark)
        return result

    def logits(self, hidden: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """[B, V] float32 for rows [B, C] of what `forward` gives."""
        num_rows, program = hidden.shape[0], self._program
        base = program.registers[program.logits].base
        kept = self._take_register(ctx, base, num_rows)
        shape = program.registers[program.hidden].sizes(num_rows)
        values: Values = {program.hidden: hidden.view(shape), **self._fixed}
        room = self._rooms(ctx, self._layout.head_rooms, num_rows, {base: kept})
        for run in self._head:
            run(values, num_rows, ctx, room)
        found = values[program.logits].view(num_rows, -1)
        if found.dtype == torch.float32:
            return found
        return self._widen(found, out=ctx.arena.take(tuple(found.shape), torch.float32))  # type: ignore[no-any-return]

    def normed(self, hidden: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """Rows as they are: `forward` has applied the final norm."""
        return hidden

    def _take_register(self, ctx: ForwardContext, number: int, num_tokens: int) -> torch.Tensor:
        register = self._program.registers[number]
        item = torch_dtype(register.dtype, self.dtype).itemsize
        num_bytes = register.num_bytes(num_tokens, item)
        return self._as(register, ctx.arena.take((num_bytes,), torch.uint8), num_tokens)

    def _rooms(
        self, ctx: ForwardContext, rooms: Rooms, num_tokens: int, kept: Values
    ) -> Callable[[int], torch.Tensor]:
        """Memory for registers, taken from the arena now."""
        sizes = rooms.num_bytes(self._program, num_tokens, self.dtype.itemsize)
        pieces = [ctx.arena.take((size,), torch.uint8) for size in sizes]
        registers = self._program.registers

        def room(number: int) -> torch.Tensor:
            if number in kept:
                return kept[number]
            return self._as(registers[number], pieces[rooms.slot_of[number]], num_tokens)

        return room

    def _as(self, register: Register, piece: torch.Tensor, num_tokens: int) -> torch.Tensor:
        """A piece of memory as a register."""
        dtype = torch_dtype(register.dtype, self.dtype)
        sizes = register.sizes(num_tokens)
        numel = 1
        for size in sizes:
            numel *= size
        outer = [sizes[axis] for axis in register.order]
        tensor = piece[: numel * dtype.itemsize].view(dtype).view(outer)
        if list(register.order) == sorted(register.order):
            return tensor
        back = [register.order.index(axis) for axis in range(len(sizes))]
        return tensor.permute(back)

    def _rows(
        self,
        number: int,
        table: torch.Tensor,
        ctx: ForwardContext,
        room: Callable[[int], torch.Tensor],
    ) -> torch.Tensor:
        """What follows from the step's positions, as rows of a table."""
        made = room(number)
        axis = self._program.registers[number].token_axis
        assert axis is not None
        self._take(_looked_up, (table, ctx.positions[0], axis), {}, out=made)
        return made


def _looked_up(
    table: torch.Tensor, positions: torch.Tensor, axis: int, *, out: torch.Tensor
) -> torch.Tensor:
    return out.copy_(table.index_select(0, positions).movedim(0, axis))


def _pairs(angles: torch.Tensor, where: str) -> torch.Tensor:
    """The cosines or sines of pairs [max_len, rot / 2]."""
    if where == "first":
        return angles[:, : angles.shape[1] // 2]
    return angles[:, ::2] if where == "even" else angles
