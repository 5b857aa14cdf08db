"""The bytes of the KV cache and the views that layers have of them; made once at start.

Which block holds what is accounted in `engine.kvcache`; the layout inside a block is the provider's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from quire.models.compressed import Compressed, Kept
from quire.models.decoder import AnyDecoder
from quire.models.recurrent import Recurrent
from quire.ops.attention import AttentionStep, CachePlace
from quire.ops.cache import COPY_BLOCKS
from quire.ops.cpu.memory import fresh
from quire.ops.cpu.pages import pages_ahead
from quire.ops.registry import Table
from quire.ops.state import StatePlan, StateStep, StateView, state_bytes
from quire.protocol.cache import CacheGroup, CacheLayout
from quire.protocol.step import BlockCopy


class CacheMemory:
    """One buffer of slabs, a view for each mixer, a plan for each group.

    buffer  uint8 [num_slabs, slab_bytes]; untouched until used.
    plans   by cache group, of attention or of states, and behind them of an encoder's own attention; refilled
            in place every step.
    caches  by number of what a mixer keeps; of a recurrent one a view for each of its states.
    """

    def __init__(
        self,
        *,
        layout: CacheLayout,
        decoder: AnyDecoder,
        device: torch.device,
        table: Table,
        is_given: bool = False,
    ) -> None:
        """is_given  the user gave its size, so all of it is ours: its pages are asked for in idle time."""
        self.layout = layout
        self.buffer = _buffer(layout, device)
        token_bytes = sum(group.block_bytes // group.block_size for group in layout.groups)
        self._pages = pages_ahead(self.buffer, token_bytes, takes_all=is_given)
        self._decoder = decoder
        self._bindings = decoder.bindings
        self.caches: list[Any] = [None] * len(self._bindings)
        self.group_of: list[int | None] = [None] * len(self._bindings)
        self.plans: list[Any] = []
        self._fills: list[Callable[[Any], None]] = []
        self._copy = table.bind(COPY_BLOCKS, "uint8")
        for index, group in enumerate(layout.groups):
            for number in group.layers:
                self.group_of[number] = index
            add = self._add_states if group.kind == "recurrent" else self._add_tokens
            used = add(index, group, device)
            assert used <= group.block_bytes, (
                f"group {index} needs {used} bytes a block, not {group.block_bytes}"
            )
        for index, group in enumerate(layout.groups):
            if group.kind == "cross":
                self._add_encoder(index, group, device)

    def _add_tokens(self, index: int, group: CacheGroup, device: torch.device) -> int:
        """Views and the plan of a group of attention; returns the bytes that it uses of a block."""
        offset = 0
        for number in group.layers:
            spec, attend = self._bindings[number].spec, self._bindings[number].attend
            assert attend is not None and not isinstance(spec, Recurrent | Compressed)
            rows = spec.rows(group.block_size) if isinstance(spec, Kept) else group.block_size
            sizes = (
                spec.num_kv_heads,
                spec.head_size,
                spec.value_size,
                self._decoder.dtype,
                attend.signature.format,
            )
            place = CachePlace(
                buffer=self.buffer,
                block_size=rows,
                blocks_per_slab=self.layout.blocks_per_slab(index),
                block_bytes=group.block_bytes,
                layer_offset=offset,
            )
            self.caches[number] = attend.provider.view(place, *sizes)
            if not self._decoder.spec.sees_both_ways:  # else all layers use one place in turn
                offset += rows * attend.provider.bytes_per_token(*sizes)
        plan, fill = self.new_plan(index)
        self.plans.append(plan)
        self._fills.append(fill)
        return offset

    def new_plan(self, index: int) -> tuple[Any, Callable[[AttentionStep], None]]:
        """A plan of a group of attention, and what fills it."""
        group = self.layout.groups[index]
        first = self._bindings[group.layers[0]].attend
        assert first is not None
        provider: Any = first.provider
        plan = provider.new_plan(
            block_size=group.block_size,
            blocks_per_slab=self.layout.blocks_per_slab(index),
            window=group.window,
            device=self.buffer.device,
        )
        return plan, partial(provider.fill, plan)

    def _add_encoder(self, index: int, group: CacheGroup, device: torch.device) -> None:
        """Views of an encoder's layers, which use the blocks of what they give in turn, and their plan, the last."""
        provider: Any = None
        for number in range(len(self._decoder.spec.mixers), len(self._bindings)):
            spec, attend = self._bindings[number].spec, self._bindings[number].attend
            assert attend is not None and not isinstance(spec, Recurrent)
            provider = attend.provider
            place = CachePlace(
                buffer=self.buffer,
                block_size=group.block_size,
                blocks_per_slab=self.layout.blocks_per_slab(index),
                block_bytes=group.block_bytes,
                layer_offset=0,
            )
            self.caches[number] = provider.view(
                place, spec.num_kv_heads, spec.head_size, spec.value_size, self._decoder.dtype
            )
            self.group_of[number] = len(self.layout.groups)
        plan = provider.new_plan(
            block_size=group.block_size,
            blocks_per_slab=self.layout.blocks_per_slab(index),
            window=None,
            device=device,
        )
        self.plans.append(plan)
        self._fills.append(partial(provider.fill, plan))

    def _add_states(self, index: int, group: CacheGroup, device: torch.device) -> int:
        """The same for a group of states, which lie one behind the other, layer by layer."""
        offset = 0
        for number in group.layers:
            spec = self._bindings[number].spec
            assert isinstance(spec, Recurrent)
            views = []
            for shape in spec.states():
                views.append(
                    StateView.inside(
                        self.buffer,
                        shape,
                        blocks_per_slab=self.layout.blocks_per_slab(index),
                        block_bytes=group.block_bytes,
                        offset=offset,
                    )
                )
                offset += state_bytes(shape)
            self.caches[number] = tuple(views)
        plan = StatePlan(group.block_size)
        self.plans.append(plan)
        self._fills.append(plan.fill)
        return offset

    def fill(self, group: int, step: AttentionStep | StateStep) -> None:
        """Refills a group's plan for this step: a StateStep for a group of states."""
        self._fills[group](step)
        is_encoders = group >= len(self.layout.groups)  # whose numbers stand in no block
        if self._pages is None or is_encoders or isinstance(step, StateStep):
            return
        if len(step.slot_mapping):
            block = int(step.slot_mapping.max()) // self.layout.groups[group].block_size
            slab = block // self.layout.blocks_per_slab(group)
            self._pages.use((slab + 1) * self.layout.slab_bytes)

    @contextmanager
    def in_step(self) -> Iterator[None]:
        """Fills, copies, and what kernels write; meanwhile no further pages are asked for."""
        if self._pages is None:
            yield
            return
        self._pages.step(True)
        try:
            yield
        finally:
            self._pages.step(False)

    def copy(self, copies: list[BlockCopy]) -> None:
        """Carries out a plan's block copies, group by group."""
        for index, group in enumerate(self.layout.groups):
            own = [copy for copy in copies if copy.group == index]
            if own:
                self._copy(
                    self.buffer,
                    block_bytes=group.block_bytes,
                    blocks_per_slab=self.layout.blocks_per_slab(index),
                    sources=[copy.source for copy in own],
                    targets=[copy.target for copy in own],
                )


def _buffer(layout: CacheLayout, device: torch.device) -> torch.Tensor:
    """uint8 [num_slabs, slab_bytes], in huge pages where the system has them. Raises MemoryError."""
    shape = (layout.num_slabs, layout.slab_bytes)
    if device.type != "cpu":
        return torch.empty(shape, dtype=torch.uint8, device=device)
    return fresh(layout.num_slabs * layout.slab_bytes).view(shape)
