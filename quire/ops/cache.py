"""Whole blocks of cache copied inside the buffer of slabs.

What lies in a block is the business of the providers of attention; moving blocks to other places is
`kv_transfer`.
"""

from __future__ import annotations

import torch

from quire.ops.registry import Provider, declare, register

COPY_BLOCKS = declare(
    "copy_blocks",
    "pure",
    "run(buffer [num_slabs,slab_bytes] in place, block_bytes, blocks_per_slab, sources, targets)",
)


def check_blocks(num_blocks: int, sources: list[int], targets: list[int]) -> None:
    """Raises ValueError if the lists differ in length or a block is not below num_blocks."""
    if len(sources) != len(targets):
        raise ValueError(f"{len(sources)} source blocks but {len(targets)} target blocks")
    for source, target in zip(sources, targets, strict=True):
        if not (0 <= source < num_blocks and 0 <= target < num_blocks):
            raise ValueError(
                f"copy of block {source} to {target}: blocks are 0 to {num_blocks - 1}"
            )


@register
class CopyBlocksReference(Provider):
    op = "copy_blocks"
    name = "reference"

    def run(
        self,
        buffer: torch.Tensor,
        *,
        block_bytes: int,
        blocks_per_slab: int,
        sources: list[int],
        targets: list[int],
    ) -> torch.Tensor:
        """Copies block sources[i] over block targets[i], one after the other; returns buffer.

        buffer [num_slabs, slab_bytes] uint8, changed in place. Block b lies in slab
        b // blocks_per_slab at byte (b % blocks_per_slab) * block_bytes. Raises ValueError if the
        lists differ in length or a block is outside the buffer.
        """
        check_blocks(buffer.shape[0] * blocks_per_slab, sources, targets)
        for source, target in zip(sources, targets, strict=True):
            slabs = (target // blocks_per_slab, source // blocks_per_slab)
            to, start = (block % blocks_per_slab * block_bytes for block in (target, source))
            buffer[slabs[0], to : to + block_bytes] = buffer[slabs[1], start : start + block_bytes]
        return buffer
