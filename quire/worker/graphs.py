"""Recorded decoder passes: a step of a size seen before is one list of native calls, run in one call.

A list is recorded from an eager pass and gives its bits; nothing of the model is written twice.
"""

from __future__ import annotations

import ctypes
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from quire.layers.context import ForwardContext
from quire.models.decoder import AnyDecoder, Decoder
from quire.ops.cpu.library import CallList, native
from quire.ops.registry import Call, Table, Tape
from quire.ops.spans import Spans
from quire.worker.batch import Batch

_MAX_TOKENS = 256
"""Steps of more packed tokens run eagerly: there the arithmetic takes a hundred times as long."""
_MAX_GRAPHS = 128

Part = Callable[[], object]


@dataclass(frozen=True)
class Graph:
    """One recorded pass.

    parts     what runs, in order: lists of native calls, and single calls that are not native.
    hidden    [T, C] where the pass leaves its result.
    mark      the arena's state behind it.
    inputs    addresses of the step's inputs, which must be what they were.
    """

    parts: tuple[Part, ...]
    hidden: torch.Tensor
    mark: tuple[int, int]
    inputs: tuple[int, ...]


class Graphs:
    """Passes by number of packed tokens, the least recently used given up first.

    Where the last layer runs for few of them, whose number differs from step to step, a list ends before it.
    """

    def __init__(self, decoder: AnyDecoder, table: Table) -> None:
        self._decoder = decoder
        self._table = table
        self._graphs: OrderedDict[tuple[int, bool], Graph] = OrderedDict()
        self._is_useful = True
        self._spans: Spans | None = None
        self._unwatched = self._graphs

    def watch(self, spans: Spans | None) -> None:
        """From now on the calls of passes have spans, also those of a list; None ends it.

        Passes recorded before are kept aside until then.
        """
        self._spans = spans
        self._graphs = self._unwatched if spans is None else OrderedDict()

    def forward(self, batch: Batch) -> torch.Tensor:
        """The residual stream [T, C] of a batch, as `Decoder.forward` gives it."""
        context = batch.context
        if not self._is_useful or context.num_tokens > _MAX_TOKENS or context.embeds is not None:
            return self._decoder.forward(context)
        hidden = self._recorded(context)
        if context.read is None:
            return hidden
        assert isinstance(self._decoder, Decoder)
        count = len(self._decoder.spec.layers)
        return self._decoder.forward(context, hidden, range(count - 1, count))

    def _recorded(self, context: ForwardContext) -> torch.Tensor:
        """What a list makes, of this step or an earlier one."""
        key = key_of(context)
        graph = self._graphs.get(key)
        if graph is None or graph.inputs != _inputs(context):
            return self._record(context)
        self._graphs.move_to_end(key)
        for part in graph.parts:
            part()
        context.arena.release(graph.mark)
        return graph.hidden

    def _run(self, context: ForwardContext) -> torch.Tensor:
        """What is recorded: a pass, without the last layer where that runs for few tokens."""
        if context.read is None:
            return self._decoder.forward(context)
        assert isinstance(self._decoder, Decoder)
        return self._decoder.forward(context, None, range(len(self._decoder.spec.layers) - 1))

    def _record(self, context: ForwardContext) -> torch.Tensor:
        with self._table.record() as tape:
            hidden = self._run(context)
        parts = compile_tape(tape)
        # Without a recording, every step would walk through a program of Transformers again.
        walks = self._decoder.spec.program is not None
        self._is_useful = walks or len(parts) <= len(tape.calls) // 2
        if self._is_useful and self._spans is not None:
            parts = [self._spans.around(call, _single(call)) for call in tape.calls]
        if self._is_useful:
            self._graphs[key_of(context)] = Graph(
                tuple(parts), hidden, context.arena.mark(), _inputs(context)
            )
            if len(self._graphs) > _MAX_GRAPHS:
                self._graphs.popitem(last=False)
        return hidden


def key_of(context: ForwardContext) -> tuple[int, bool]:
    """What tells recorded passes apart: the number of packed tokens, and whether few of them are read."""
    return context.num_tokens, context.read is not None


def _inputs(context: ForwardContext) -> tuple[int, ...]:
    return context.ids.data_ptr(), context.positions.data_ptr()


def compile_tape(tape: Tape) -> list[Part]:
    """The calls of a tape, neighbouring native ones joined to one call of the library."""
    parts: list[Part] = []
    run: list[tuple[int, ctypes.Structure]] = []
    for call in tape.calls:
        maker = _native_maker(call)
        if maker is not None:
            run.append(maker(*call.args, **call.kwargs))
            continue
        if run:
            parts.append(_native_part(run))
            run = []
        parts.append(_python_part(call))
    if run:
        parts.append(_native_part(run))
    return parts


def _native_maker(call: Call) -> Callable[..., tuple[int, ctypes.Structure]] | None:
    """What makes the native form of a call: the provider's `native`, or `native_<method>`."""
    method = call.function.__name__
    name = "native" if method == "run" else f"native_{method}"
    maker: Callable[..., tuple[int, ctypes.Structure]] | None = getattr(
        call.bound.provider, name, None
    )
    return maker


def _native_part(entries: list[tuple[int, ctypes.Structure]]) -> Part:
    return partial(native().run_list, CallList(entries))


def _single(call: Call) -> Part:
    maker = _native_maker(call)
    if maker is None:
        return _python_part(call)
    return _native_part([maker(*call.args, **call.kwargs)])


def _python_part(call: Call) -> Part:
    return lambda: call.function(*call.args, **call.kwargs)
