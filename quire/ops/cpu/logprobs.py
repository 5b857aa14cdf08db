"""Log-probabilities of chosen and best tokens by the native library.

The definition is in `ops.logprobs`; kernels are csrc/ops/sampling_logprobs.cpp.
"""

from __future__ import annotations

import ctypes
import itertools
import struct
from collections.abc import Sequence

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.sampling import OverLogits, num_threads
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.logprobs import TopRow
from quire.ops.registry import register

_TOP, _TopArgs = NUMBERS["top_logprobs"], STRUCTS["top_logprobs"]
_WANTED = struct.Struct("=5q")
"""Row, number of best entries, where its asked ids begin and end, where its results begin."""


@register
class TopLogprobsCpu(OverLogits):
    op = "top_logprobs"

    def run(
        self,
        x: torch.Tensor,
        chosen: Sequence[int],
        *,
        counts: Sequence[int],
        extra: Sequence[Sequence[int]],
        normalize: bool,
        rows: Sequence[int] | None = None,
    ) -> list[TopRow]:
        """For each row: the chosen id, its `counts` best in falling order, the ids in `extra`."""
        size = x.shape[1]
        asked: list[int] = []
        packed: list[bytes] = []
        starts = [0]
        for at, choice in enumerate(chosen):
            count = min(counts[at], size) if counts[at] >= 0 else size
            begin = len(asked)
            asked.append(choice)
            asked.extend(extra[at])
            row = at if rows is None else rows[at]
            packed.append(_WANTED.pack(row, count, begin, len(asked), starts[-1]))
            starts.append(starts[-1] + count + len(asked) - begin)
        params = b"".join(packed)
        wanted = ctypes.create_string_buffer(params, len(params))
        listed = (ctypes.c_int64 * len(asked))(*asked)
        ids, ranks = (ctypes.c_int64 * starts[-1])(), (ctypes.c_int64 * starts[-1])()
        values = (ctypes.c_float * starts[-1])()
        native().run(
            _TOP,
            _TopArgs(
                x.data_ptr(), ctypes.addressof(wanted), ctypes.addressof(listed),
                ctypes.addressof(ids), ctypes.addressof(values), ctypes.addressof(ranks),
                len(chosen), x.stride(0), size, normalize, 0,
            ),
            num_threads(len(chosen), size),
        )  # fmt: skip
        return [
            (ids[start:stop], values[start:stop], ranks[start:stop])
            for start, stop in itertools.pairwise(starts)
        ]
