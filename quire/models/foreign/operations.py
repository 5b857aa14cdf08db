"""The steps of a program as calls of bound operations; made once at load.

What is where in memory is `models.foreign.rooms`; the loop over steps is `models.foreign.decoder`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from quire.layers.context import ForwardContext
from quire.layers.dtypes import dtype_name
from quire.layers.linear import Linear
from quire.models.foreign.attend import Attend
from quire.models.foreign.program import Step, registers_of
from quire.models.foreign.rooms import is_view
from quire.models.foreign.rows import short
from quire.models.foreign.torch_calls import copied, function_of, in_place, several, writer_of
from quire.ops.elementwise import ACT, ACT_MUL, ADD, SCALE
from quire.ops.embedding import EMBEDDING
from quire.ops.foreign import TORCH
from quire.ops.norm import ADD_RMS_NORM, LAYER_NORM, RMS_NORM
from quire.ops.registry import Bound, Table
from quire.ops.rope import QK_ROPE, ROPE

Values = dict[int, torch.Tensor]
Room = Callable[[int], torch.Tensor]
Run = Callable[[Values, int, ForwardContext, Room], None]
"""values by register, T, the step's context, and memory for a register."""


class Operations:
    """Makes runs of steps.

    linears, tables, norms, raw  by parameter: products, packed embeddings, float32 weights, other numbers;
    filled before the first run.
    attends  by index.
    in_place  turned heads and sums that lie where a register lay before. widths: rows of weights.
    ropes    by (cos, sin, form): tables [max_len, rot].
    """

    def __init__(
        self, table: Table, dtype: torch.dtype, in_place: dict[int, int], widths: dict[str, int]
    ) -> None:
        self._table = table
        self._dtype = dtype
        self._name = dtype_name(dtype)
        self._in_place = in_place
        self._widths = widths
        self._act_mul = table.bind(ACT_MUL, self._name)
        self.linears: dict[str, Linear] = {}
        self.embeddings: dict[str, tuple[Bound, object]] = {}
        self.weights: dict[str, torch.Tensor] = {}
        self.attends: list[Attend] = []
        self.ropes: dict[tuple[Any, ...], torch.Tensor] = {}
        self._torch = table.bind(TORCH, self._name)
        self._copy = table.bind(SCALE, self._name)
        self._add = table.bind(ADD, self._name)
        self._act = table.bind(ACT, self._name)

    def run_of(self, step: Step) -> Run:
        """What carries out a step."""
        own = getattr(self, f"_{step.op}_run", None) if "." not in step.op else None
        if own is not None:
            run: Run = own(step)
            return run
        if is_view(step):
            return self._view(step)
        if step.op == "aten.add.Tensor" and len(registers_of(step.args)) == 2 and not step.kwargs:
            return self._both(step, self._add)
        return self._other(step)

    def _linear_run(self, step: Step) -> Run:
        source, out, linear = step.args[0]["r"], step.outs[0], self.linears[step.args[1]]

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            values[out] = made = room(out)
            x = self._rows(values[source], ctx)
            linear(x, out=made.view(-1, made.shape[-1]))

        return run

    def _linears_run(self, step: Step) -> Run:
        source, linear, stack = step.args[0]["r"], self.linears[step.args[1][0]], step.args[3]
        parts, start = [], 0
        for number, name in zip(step.outs, step.args[1], strict=True):
            parts.append((number, slice(start, start + self._widths[name])))
            start += self._widths[name]

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            values[stack] = made = room(stack)
            linear(self._rows(values[source], ctx), out=made.view(-1, made.shape[-1]))
            values.update((number, made[..., part]) for number, part in parts)

        return run

    def _act_mul_run(self, step: Step) -> Run:
        source, out, name = step.args[0]["r"], step.outs[0], step.args[1]

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            values[out] = made = room(out)
            x = values[source]
            self._act_mul(x.view(-1, x.shape[-1]), act=name, out=made.view(-1, made.shape[-1]))

        return run

    def _embedding_run(self, step: Step) -> Run:
        source, out = step.args[0]["r"], step.outs[0]
        bound, packed = self.embeddings[step.args[1]]

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            values[out] = made = room(out)
            bound(values[source].view(-1), packed, out=made.view(-1, made.shape[-1]))

        return run

    def _rms_norm_run(self, step: Step) -> Run:
        weight, eps = self.weights[step.args[1]], step.args[2]
        norm = self._table.bind(RMS_NORM, self._name, C=weight.shape[-1])
        return self._shaped(step, lambda x, out: norm(x, weight, eps=eps, out=out))

    def _add_rms_norm_run(self, step: Step) -> Run:
        first, second = (step.args[place]["r"] for place in range(2))
        weight, eps = self.weights[step.args[2]], step.args[3]
        total, out = step.outs
        norm = self._table.bind(ADD_RMS_NORM, self._name, C=weight.shape[-1])
        place = self._in_place.get(total)
        added = second if place in (None, first) else first

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            x = self._rows(values[added], ctx)
            if place is None:
                values[total] = room(total)
                self._put(values[first], values[total])
            else:
                values[total] = values[place]
            values[out] = made = room(out)
            norm(x, values[total][0], weight, eps=eps, out=made[0])

        return run

    def _layer_norm_run(self, step: Step) -> Run:
        weight, eps = self.weights[step.args[1]], step.args[3]
        bias = None if step.args[2] is None else self.weights[step.args[2]]
        norm = self._table.bind(LAYER_NORM, self._name, C=weight.shape[-1])
        return self._shaped(step, lambda x, out: norm(x, weight, bias, eps=eps, out=out))

    def _act_run(self, step: Step) -> Run:
        name = step.args[1]
        return self._shaped(step, lambda x, out: self._act(x, act=name, out=out))

    def _rope_run(self, step: Step) -> Run:
        source, out, axis = step.args[0]["r"], step.outs[0], step.args[3]
        table = self.ropes[rope_key(step)]
        in_place = out in self._in_place
        interleaved = step.args[4]
        turns: dict[int, Bound] = {}

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            x = values[source]
            if not in_place:
                made = room(out)
                self._put(x, made)
                x = made
            values[out] = x
            heads = x[0] if axis == 1 else x[0].transpose(0, 1)  # [T, H, D]
            turn = turns.get(heads.shape[-1])
            if turn is None:
                turn = turns[heads.shape[-1]] = self._table.bind(
                    ROPE, self._name, D=heads.shape[-1], rot=table.shape[1]
                )
            turn(heads, ctx.positions[0], table=table, interleaved=interleaved)

        return run

    def _qk_rope_run(self, step: Step) -> Run:
        source, axis, interleaved = step.args[0]["r"], step.args[3], step.args[4]
        table, names, eps = self.ropes[rope_key(step)], step.args[6], step.args[7]
        num_heads, num_kv_heads, size = step.args[8]
        sizes = {"D": size, "rot": table.shape[1]}
        if names is None:
            turn = partial(self._table.bind(ROPE, self._name, **sizes))
        else:
            bound = self._table.bind(QK_ROPE, self._name, H=num_heads, K=num_kv_heads, **sizes)
            q_weight, k_weight = (self.weights[name] for name in names)
            turn = partial(
                bound, q_weight=q_weight, k_weight=k_weight, num_q_heads=num_heads, eps=eps
            )
        both = num_heads + num_kv_heads

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            heads = values[source][0, :, : both * size].view(num_tokens, both, size)
            turn(heads, positions=ctx.positions[0], table=table, interleaved=interleaved)
            for number, part in zip(step.outs, (heads[:, :num_heads], heads[:, num_heads:])):
                values[number] = (part if axis == 1 else part.transpose(0, 1))[None]

        return run

    def _attention_run(self, step: Step) -> Run:
        q, k, v = (step.args[place]["r"] for place in range(3))
        out, attend = step.outs[0], self.attends[step.args[3]]

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            values[out] = made = room(out)
            heads = [self._heads(values[number], ctx) for number in (q, k, v)]
            attend(*heads, ctx, made[0])

        return run

    def _view(self, step: Step) -> Run:
        function, outs = function_of(step.op), step.outs
        is_shape = short(step) in ("view", "_unsafe_view")

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            args = self._filled(step.args, values, num_tokens)
            made = self._viewed(args[0], args[1], ctx) if is_shape else function(*args)
            for number, tensor in zip(outs, made if len(outs) > 1 else [made], strict=True):
                values[number] = tensor

        return run

    def _viewed(self, x: torch.Tensor, shape: list[int], ctx: ForwardContext) -> torch.Tensor:
        """x in another shape, copied if its memory lies in another order than in the pass that was followed."""
        try:
            return x.view(shape)
        except RuntimeError:
            return self._fresh(x, ctx).view(shape)

    def _both(self, step: Step, bound: Bound) -> Run:
        """Of two tensors of one shape; other pairs go to torch."""
        first, second = (arg["r"] for arg in step.args)
        out, other = step.outs[0], self._other(step)

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            x, y = values[first], values[second]
            made = values[out] = room(out)
            alike = x.shape == y.shape == made.shape and x.dtype == y.dtype == self._dtype
            planes = [_plane(one) for one in (x, y, made)] if alike else [None]
            if any(one is None for one in planes):
                other(values, num_tokens, ctx, room)
                return
            bound(planes[0], planes[1], out=planes[2])

        return run

    def _shaped(self, step: Step, call: Callable[[torch.Tensor, torch.Tensor], object]) -> Run:
        source, out = step.args[0]["r"], step.outs[0]

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            values[out] = made = room(out)
            x = values[source]
            if x.is_contiguous() and made.is_contiguous():
                call(x.view(-1, x.shape[-1]), made.view(-1, made.shape[-1]))
            elif x.shape[0] == 1 and x.dim() in (3, 4) and x.stride(-1) == 1 == made.stride(-1):
                call(x[0], made[0])
            else:
                self._put(x, made)
                call(made, made)

        return run

    def _other(self, step: Step) -> Run:
        """Whatever else torch does."""
        function, outs = function_of(step.op), step.outs
        if function._schema.is_mutable:
            return self._mutating(step, function)
        if step.op.split(".")[1] in ("_to_copy", "clone"):
            source = step.args[0]["r"]

            def copy(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
                values[outs[0]] = made = room(outs[0])
                self._put(values[source], made)

            return copy
        writer = writer_of(function) if len(outs) == 1 else None

        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            args = tuple(self._filled(step.args, values, num_tokens))
            keys = self._filled(step.kwargs, values, num_tokens)
            made = [room(number) for number in outs]
            values.update(zip(outs, made, strict=True))
            self._torch(writer or several(function, made), args, keys, out=made[0])

        return run

    def _mutating(self, step: Step, function: Any) -> Run:
        def run(values: Values, num_tokens: int, ctx: ForwardContext, room: Room) -> None:
            args = tuple(self._filled(step.args, values, num_tokens))
            keys = self._filled(step.kwargs, values, num_tokens)
            self._torch(in_place(function), args, keys, out=args[0])
            values[step.outs[0]] = args[0]

        return run

    def _put(self, x: torch.Tensor, out: torch.Tensor) -> None:
        """Copies x to out of the same shape."""
        a, b = _plane(x), _plane(out)
        if a is not None and b is not None and x.dtype == out.dtype == self._dtype:
            self._copy(a, factor=1.0, out=b)
        else:
            self._torch(copied, (x,), {}, out=out)

    def _fresh(self, x: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """A copy of x in the arena, rows in order; the copy is an operation, which a recorded step repeats."""
        room = ctx.arena.take(tuple(x.shape), x.dtype)
        self._put(x, room)
        return room

    def _rows(self, x: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """x [..., K] as [rows, K], copied to the arena if its memory does not allow that."""
        plane = _plane(x)
        if plane is not None:
            return plane if plane.shape[-1] == x.shape[-1] else x.view(-1, x.shape[-1])
        return self._fresh(x, ctx).view(-1, x.shape[-1])

    def _heads(self, x: torch.Tensor, ctx: ForwardContext) -> torch.Tensor:
        """x [1, H, T, D] as [T, H, D] with neighbours in a head."""
        heads = x[0].transpose(0, 1)
        return heads if heads.stride(-1) == 1 else self._fresh(heads, ctx)

    def _filled(self, value: Any, values: Values, num_tokens: int) -> Any:
        """Arguments with what their placeholders stand for."""
        return filled(value, values, num_tokens, self._dtype, self.weights)


def filled(
    value: Any,
    values: Values,
    num_tokens: int,
    dtype: torch.dtype,
    weights: dict[str, torch.Tensor],
) -> Any:
    """Arguments of a step with tensors, numbers for T, and element types in place."""
    if isinstance(value, dict):
        if "r" in value:
            return values[value["r"]]
        if "t" in value:
            return value["t"][0] * num_tokens + value["t"][1]
        if "p" in value:
            return weights[value["p"]]
        if set(value) == {"dtype"} and isinstance(value["dtype"], str):
            return torch_dtype(value["dtype"], dtype)
        return {
            key: filled(item, values, num_tokens, dtype, weights) for key, item in value.items()
        }
    if isinstance(value, list):
        return [filled(item, values, num_tokens, dtype, weights) for item in value]
    return value


def torch_dtype(name: str, model: torch.dtype) -> torch.dtype:
    """The element type of a name, "model" being the model's."""
    return model if name == "model" else getattr(torch, name)


def rope_key(step: Step) -> tuple[Any, ...]:
    """What the table of a turn depends on."""
    return step.args[1]["r"], step.args[2]["r"], step.args[5]


def _plane(x: torch.Tensor) -> torch.Tensor | None:
    """x as rows [n, C] with neighbours in a row; None if its memory does not allow that."""
    if x.is_contiguous():
        return x.view(-1, x.shape[-1]) if x.dim() > 1 else x.view(1, -1)
    while x.dim() > 2 and x.shape[0] == 1:
        x = x[0]
    if x.dim() == 3 and x.stride(2) == 1 and x.stride(1) == x.shape[2]:
        x = x.flatten(1)
    return x if x.dim() == 2 and x.stride(1) == 1 else None


def embedding_of(table: Table, dtype: torch.dtype, shape: tuple[int, ...]) -> Bound:
    """The operation for a table of this shape [V, C]."""
    return table.bind(EMBEDDING, dtype_name(dtype), V=shape[0], C=shape[1])
