"""From logits to token ids by the native library: best entries, filters, draws, and all in one call.

The definitions are in `ops.sample`; kernels are csrc/ops/sampling.cpp. What changes logits before
that is `ops.cpu.sampling_edits`.
"""

from __future__ import annotations

import ctypes
import math
import struct
from collections.abc import Sequence

import torch

from quire.ops.cpu.library import native, refuses
from quire.ops.cpu.structs import NUMBERS, STRUCTS
from quire.ops.registry import Provider, Signature, register

_ARGMAX, _ArgmaxArgs = NUMBERS["argmax"], STRUCTS["argmax"]
_SAMPLE, _SampleArgs = NUMBERS["sample_rows"], STRUCTS["sample_rows"]
_FILTER, _FilterArgs = NUMBERS["filter_rows"], STRUCTS["filter_rows"]

_ASKED = struct.Struct("=qQIIddqfi")
"""Row, seed, output position, choice index, log(min_p), top_p, top_k, temperature, reserved."""
_SMALL = 32_768  # logits below which a second thread does not pay
_SEED = 0xFFFFFFFF_FFFFFFFF


def num_threads(num_rows: int, size: int) -> int:
    """For `Library.run`: one thread where there is little to do; results do not depend on it."""
    return 1 if num_rows * size <= _SMALL else 0


class OverLogits(Provider):
    """What the operations on x [B, V] float32 have in common: rows may be strided, entries not."""

    name = "cpu"

    def accepts(self, signature: Signature) -> str | None:
        return refuses(signature)


@register
class ArgmaxCpu(OverLogits):
    op = "argmax"

    def run(
        self, x: torch.Tensor, rows: Sequence[int] | None = None
    ) -> tuple[list[int], list[float]]:
        """Id and value of the best entry of each row, ties to the lowest id; rows None is all.

        A row with a NaN gives NaN as its value.
        """
        count = x.shape[0] if rows is None else len(rows)
        if count == 0:
            return [], []
        listed = None if rows is None else (ctypes.c_int64 * count)(*rows)
        ids, values = (ctypes.c_int64 * count)(), (ctypes.c_float * count)()
        native().run(
            _ARGMAX,
            _ArgmaxArgs(
                x.data_ptr(),
                listed and ctypes.addressof(listed),
                ctypes.addressof(ids),
                ctypes.addressof(values),
                count,
                x.stride(0),
                x.shape[1],
            ),
            num_threads(count, x.shape[1]),
        )
        return ids[:], values[:]


@register
class SampleRowsCpu(OverLogits):
    op = "sample_rows"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        *,
        temperature: Sequence[float],
        min_p: Sequence[float],
        top_k: Sequence[int],
        top_p: Sequence[float],
        seeds: Sequence[int],
        positions: Sequence[int],
        indices: Sequence[int],
    ) -> tuple[list[int], list[float]]:
        """Token id of each row, and its best entry divided by the temperature; x is not modified."""
        count = len(rows)
        if count == 0:
            return [], []
        asked = (ctypes.c_char * (_ASKED.size * count))()
        columns = zip(
            rows, seeds, positions, indices, min_p, top_p, top_k, temperature, strict=True
        )
        for at, (row, seed, position, index, least, share, best, degree) in enumerate(columns):
            floor = math.log(least) if least > 0.0 else -math.inf
            _ASKED.pack_into(
                asked, at * _ASKED.size,
                row, seed & _SEED, position, index, floor, share, best, degree, 0,
            )  # fmt: skip
        ids, values = (ctypes.c_int64 * count)(), (ctypes.c_float * count)()
        native().run(
            _SAMPLE,
            _SampleArgs(
                x.data_ptr(),
                ctypes.addressof(asked),
                ctypes.addressof(ids),
                ctypes.addressof(values),
                count,
                x.stride(0),
                x.shape[1],
            ),
            num_threads(count, x.shape[1]),
        )
        return ids[:], values[:]


@register
class GumbelDrawCpu(OverLogits):
    op = "gumbel_draw"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        *,
        seeds: Sequence[int],
        positions: Sequence[int],
        indices: Sequence[int],
    ) -> list[int]:
        """The id with the best x + g of each row, ties to the lowest id."""
        count = len(rows)
        ones, zeros = [1.0] * count, [0] * count
        drawn, _ = _SAMPLE_ROWS.run(
            x, rows, temperature=ones, min_p=zeros, top_k=zeros, top_p=ones,
            seeds=seeds, positions=positions, indices=indices,
        )  # fmt: skip
        return drawn


@register
class FilterRowsCpu(OverLogits):
    op = "filter_rows"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        *,
        min_p: Sequence[float],
        top_k: Sequence[int],
        top_p: Sequence[float],
    ) -> None:
        """Sets to -inf what min_p, then top_k, then top_p leave out; the best id always stays."""
        asked = b"".join(
            [
                _ASKED.pack(
                    row, 0, 0, 0, math.log(least) if least > 0.0 else -math.inf, share, best, 1.0, 0
                )
                for row, least, best, share in zip(rows, min_p, top_k, top_p, strict=True)
            ]
        )
        room = ctypes.create_string_buffer(asked, len(asked))
        native().run(
            _FILTER,
            _FilterArgs(x.data_ptr(), ctypes.addressof(room), len(rows), x.stride(0), x.shape[1]),
            num_threads(len(rows), x.shape[1]),
        )


_SAMPLE_ROWS = SampleRowsCpu()
