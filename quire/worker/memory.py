"""The bytes of the KV cache and the views that layers have of them; made once at start.

Which block holds what is accounted in `engine.kvcache`; the layout inside a block is the provider's.
"""

from __future__ import annotations

from typing import Any

import torch

from quire.models.decoder import Decoder
from quire.ops.attention import AttentionStep, CachePlace
from quire.ops.cache import COPY_BLOCKS
from quire.ops.registry import Bound, Table
from quire.protocol.cache import CacheLayout
from quire.protocol.step import BlockCopy


class CacheMemory:
    """One buffer of slabs, a view for each layer, an attention plan for each group.

    buffer  uint8 [num_slabs, slab_bytes]; untouched until used.
    plans   by cache group; refilled in place every step.
    caches  by decoder layer; None for a layer without a cache of its own.
    """

    def __init__(
        self,
        *,
        layout: CacheLayout,
        decoder: Decoder,
        device: torch.device,
        table: Table,
    ) -> None:
        self.layout = layout
        self.buffer = torch.empty(
            (layout.num_slabs, layout.slab_bytes), dtype=torch.uint8, device=device
        )
        layers = decoder.attention_layers
        self.caches: list[Any] = [None] * len(layers)
        self.group_of: list[int | None] = [None] * len(layers)
        self.plans: list[Any] = []
        self._attends: list[Bound] = []
        self._copy = table.bind(COPY_BLOCKS, "uint8")
        for index, group in enumerate(layout.groups):
            offset = 0
            for layer in group.layers:
                spec, attend = layers[layer].spec, layers[layer].attend
                sizes = (
                    spec.num_kv_heads,
                    spec.head_size,
                    spec.value_size,
                    decoder.dtype,
                    attend.signature.format,
                )
                place = CachePlace(
                    buffer=self.buffer,
                    block_size=group.block_size,
                    blocks_per_slab=layout.blocks_per_slab(index),
                    block_bytes=group.block_bytes,
                    layer_offset=offset,
                )
                self.caches[layer] = attend.provider.view(place, *sizes)  # type: ignore[attr-defined]
                self.group_of[layer] = index
                part = group.block_size * attend.provider.bytes_per_token(*sizes)  # type: ignore[attr-defined]
                if not decoder.spec.sees_both_ways:  # else all layers use one place in turn
                    offset += part
            assert offset <= group.block_bytes, (
                f"group {index} needs {offset} bytes a block, not {group.block_bytes}"
            )
            attend = layers[group.layers[0]].attend
            self._attends.append(attend)
            self.plans.append(
                attend.provider.new_plan(  # type: ignore[attr-defined]
                    block_size=group.block_size,
                    blocks_per_slab=layout.blocks_per_slab(index),
                    window=group.window,
                    device=device,
                )
            )

    def fill(self, group: int, step: AttentionStep) -> None:
        """Refills a group's plan for this step."""
        self._attends[group].provider.fill(self.plans[group], step)  # type: ignore[attr-defined]

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
