"""Recurrent states in blocks: what an operation on them must know of a step, and where a state lies.

A block stands for an interval of a sequence's tokens and holds the state after the last of them so
far. A token whose interval begins with it starts from the block before, or from zeros. Who owns which
block is the engine's business; what the numbers of a state mean is the operation's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch

ALIGNMENT = 64
"""Every state of a layer begins at a multiple of so many bytes of its block."""
NO_BLOCK = -1
"""In the place of a block to start from: zeros."""


def state_bytes(shape: tuple[int, ...]) -> int:
    """Bytes that one state of float32 takes in a block."""
    return -(-4 * prod(shape) // ALIGNMENT) * ALIGNMENT


@dataclass(frozen=True, kw_only=True)
class StateStep:
    """A step for one group of recurrent layers, in host memory.

    query_start  [B+1] int32, first packed token of each sequence, and T at the end.
    seq_lens     [B] int32, tokens of each sequence after this step.
    block_table  [B, max_blocks] int32, the block of each interval; -1 where it was given back.
    """

    query_start: npt.NDArray[np.int32]
    seq_lens: npt.NDArray[np.int32]
    block_table: npt.NDArray[np.int32]


@dataclass(frozen=True)
class Piece:
    """Packed tokens `begin` to `end` of sequence `row`, all in one interval.

    They start from the state in block `source` (NO_BLOCK: zeros) and leave theirs in `target`, which may
    be the same.
    """

    row: int
    begin: int
    end: int
    source: int
    target: int


class StatePlan:
    """A step behind a record whose address does not move, for native calls that are repeated.

    interval  tokens of a block.
    record    int64: addresses of query_start, seq_lens and block_table, elements from row to row of the
              table, sequences, interval.
    """

    def __init__(self, interval: int) -> None:
        self.interval = interval
        self.record = np.zeros(6, dtype=np.int64)
        self._arrays: tuple[npt.NDArray[np.int32], ...] = ()

    @property
    def address(self) -> int:
        """Of the record. Raises ValueError if there was no step yet."""
        self._check()
        return self.record.ctypes.data

    def fill(self, step: StateStep) -> None:
        """Takes over a step; its arrays are kept by reference."""
        arrays = tuple(
            np.ascontiguousarray(array, dtype=np.int32)
            for array in (step.query_start, step.seq_lens, step.block_table)
        )
        places = [array.__array_interface__["data"][0] for array in arrays]
        self.record[:] = [*places, arrays[2].shape[1], len(arrays[1]), self.interval]
        self._arrays = arrays

    def pieces(self) -> list[Piece]:
        """The step cut where intervals begin, in the order of the packed tokens.

        Raises ValueError if there was no step yet.
        """
        self._check()
        query_start, seq_lens, table = self._arrays
        found: list[Piece] = []
        for row, seq_len in enumerate(seq_lens.tolist()):
            begin, end = query_start[row : row + 2].tolist()
            position = seq_len - (end - begin)
            while begin < end:
                index, place = divmod(position, self.interval)
                count = min(self.interval - place, end - begin)
                target = int(table[row, index])
                before = int(table[row, index - 1]) if index else NO_BLOCK
                source = target if place else before
                found.append(Piece(row, begin, begin + count, source, target))
                begin, position = begin + count, position + count
        return found

    def _check(self) -> None:
        if not self._arrays:
            raise ValueError("a plan of recurrent states is used before it was filled")


@dataclass(frozen=True, kw_only=True)
class StateView:
    """One state of one layer in all blocks.

    tensor       float32 [num_slabs, blocks_per_slab, ...], where block b is in slab b // blocks_per_slab.
    block_bytes  from block to block inside a slab of slab_bytes.
    """

    tensor: torch.Tensor
    slab_bytes: int
    block_bytes: int
    blocks_per_slab: int

    @property
    def address(self) -> int:
        """Where block 0 has it."""
        return self.tensor.data_ptr()

    def at(self, block: int) -> torch.Tensor:
        """The state in a block, its memory."""
        return self.tensor[block // self.blocks_per_slab, block % self.blocks_per_slab]

    def start(self, piece: Piece) -> torch.Tensor:
        """A copy of the state that a piece starts from."""
        if piece.source == NO_BLOCK:
            return torch.zeros_like(self.at(piece.target))
        return self.at(piece.source).clone()

    @staticmethod
    def inside(
        buffer: torch.Tensor,
        shape: tuple[int, ...],
        *,
        blocks_per_slab: int,
        block_bytes: int,
        offset: int,
    ) -> StateView:
        """The states of `shape` at byte `offset` of each block of `buffer` [num_slabs, slab_bytes] uint8.

        Raises ValueError if bytes are no multiple of 4, or the state does not fit into a block.
        """
        num_slabs, slab_bytes = buffer.shape
        if slab_bytes % 4 or block_bytes % 4 or offset % 4 or buffer.storage_offset() % 4:
            raise ValueError(
                f"slab of {slab_bytes} bytes, block of {block_bytes} and state at {offset}: each must "
                "be a multiple of 4 bytes"
            )
        if offset + 4 * prod(shape) > block_bytes or blocks_per_slab * block_bytes > slab_bytes:
            raise ValueError(
                f"a state of {4 * prod(shape)} bytes at {offset} does not fit: blocks have "
                f"{block_bytes} bytes, {blocks_per_slab} in a slab of {slab_bytes}"
            )
        inner = [prod(shape[place + 1 :]) for place in range(len(shape))]
        flat = buffer.view(torch.float32)
        tensor = flat.as_strided(
            (num_slabs, blocks_per_slab, *shape),
            (slab_bytes // 4, block_bytes // 4, *inner),
            flat.storage_offset() + offset // 4,
        )
        return StateView(
            tensor=tensor,
            slab_bytes=slab_bytes,
            block_bytes=block_bytes,
            blocks_per_slab=blocks_per_slab,
        )

    @staticmethod
    def of(num_blocks: int, shape: tuple[int, ...]) -> StateView:
        """Zeros in memory of their own, each block in a slab of its own."""
        size = state_bytes(shape)
        buffer = torch.zeros((num_blocks, size), dtype=torch.uint8)
        return StateView.inside(buffer, shape, blocks_per_slab=1, block_bytes=size, offset=0)
