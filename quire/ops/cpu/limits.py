"""What this machine reaches at most, measured: the figures that kernels are held against.

Kernels of their own are in the other files; the report is `bench.ops`.
"""

from __future__ import annotations

import time

import torch

from quire.ops.cpu.library import native
from quire.ops.cpu.memory import allocate
from quire.ops.cpu.structs import DTYPES, NUMBERS, STRUCTS

_SUMS = 12  # registers that one step of the probe multiplies into, as in csrc/ops/probe.cpp
_STEPS = 400_000
_NARROW = {"avx512": 32, "amx": 32, "amx_emulated": 32}
"""Products of one register for bfloat16 where the processor has an instruction for it; else 16."""
_LONGER = {"amx": 16}
"""Times as many steps for bfloat16: tile registers are through with the usual ones in a tenth of a millisecond."""


class ReadProbe:
    """Bytes read in order by all threads, from a buffer larger than any cache."""

    def __init__(self, num_bytes: int = 512 << 20) -> None:
        self._data = allocate(num_bytes)
        self._data.fill_(1)
        self._out = torch.zeros(16 * 256, dtype=torch.int32)

    def run(self) -> float:
        """Bytes a second of one pass."""
        args = STRUCTS["probe_read"](
            data=self._data.data_ptr(), out=self._out.data_ptr(), bytes=self._data.numel()
        )
        started = time.perf_counter()
        native().run(NUMBERS["probe_read"], args)
        return self._data.numel() / (time.perf_counter() - started)


def dot_rate(dtype: str) -> float:
    """Floating-point operations a second of multiply-adds on registers, all threads together."""
    out = torch.zeros(16 * 256, dtype=torch.float32)
    isa = native().isa if dtype == "bfloat16" else ""
    lanes, steps = _NARROW.get(isa, 16), _STEPS * _LONGER.get(isa, 1)
    args = STRUCTS["probe_dot"](out=out.data_ptr(), steps=steps, dtype=DTYPES[dtype])
    started = time.perf_counter()
    native().run(NUMBERS["probe_dot"], args)
    seconds = time.perf_counter() - started
    return 2.0 * lanes * _SUMS * steps * torch.get_num_threads() / seconds
