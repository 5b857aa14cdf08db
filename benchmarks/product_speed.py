"""How fast products with packed weights are in each stored format, against plain ones, in turns.

The shapes are those of a layer of Qwen3-0.6B; enough layers are packed that no cache holds them. Run as
`python -m benchmarks.product_speed [FORMAT ...]`: bytes and times for 1, 16 and 32 rows.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from quire.hardware.cpu import read_machine
from quire.ops.formats import KNOWN, SUPER_FORMATS, SUPER_KINDS, Format, parse
from quire.ops.linear import LINEAR
from quire.ops.quantized import QuantizedWeight, SuperBlocks
from quire.ops.registry import Table
from quire.quant.rounding import quantize

SHAPES = ((4096, 1024), (1024, 2048), (6144, 1024), (1024, 3072))
"""Outputs and inputs of q, k and v; of what follows attention; of gate and up; of down."""
LEAST_BYTES = 96 << 20
"""Of the weights of one format: more than any cache near the cores holds."""


def random_weight(format: Format, num_columns: int, depth: int, dtype: torch.dtype) -> object:
    """A weight [num_columns, depth] of any numbers in a format."""
    if format.kind != "super":
        weight = (torch.rand(num_columns, depth) - 0.5).to(dtype)
        return weight if format.bits is None else quantize(weight, format)
    kind = SUPER_KINDS[format.runs[0][0]]
    most = 1 << min(kind.bits, 7)
    spans = (num_columns, depth // 16)
    factors = torch.full((num_columns, depth // 256), 2.0**-10)
    return QuantizedWeight(
        format,
        torch.randint(0, most - kind.bias, (num_columns, depth), dtype=torch.int8),
        factors,
        dtype,
        inner=SuperBlocks(
            factors,
            torch.randint(0, 16, spans, dtype=torch.int8),
            torch.randint(0, 16, spans, dtype=torch.uint8),
        ),
    )


class Products:
    """The products of some layers in one format, by the provider that this machine takes."""

    def __init__(self, name: str, dtype: torch.dtype) -> None:
        format = parse(name)
        self._dtype = dtype
        self.num_bytes = sum(format.num_bytes(n, k, dtype.itemsize) for n, k in SHAPES)
        layers = -(-LEAST_BYTES // self.num_bytes)
        one_line = str(dtype).removeprefix("torch.")
        self._bound = [
            Table().bind(LINEAR, one_line, format=name, N=n, K=k) for n, k in SHAPES
        ] * layers
        kept = [random_weight(format, n, k, dtype) for n, k in SHAPES] * layers
        self._packed = [
            bound.provider.pack(weight)  # type: ignore[attr-defined]
            for bound, weight in zip(self._bound, kept, strict=True)
        ]
        self._layers = layers

    def seconds(self, rows: int) -> float:
        """Of one layer."""
        inputs = [torch.rand(rows, k).to(self._dtype) for _, k in SHAPES] * self._layers
        outputs = [torch.empty(rows, n, dtype=self._dtype) for n, _ in SHAPES] * self._layers
        start = time.perf_counter()
        for bound, packed, x, out in zip(self._bound, self._packed, inputs, outputs, strict=True):
            bound(x, packed, out=out)
        return (time.perf_counter() - start) / self._layers


class Speeds:
    """Times of formats over those of plain weights that ran beside them, measured when first asked for."""

    def __init__(self, dtype: str, rounds: int) -> None:
        self._dtype: torch.dtype = getattr(torch, dtype)
        self._rounds = rounds
        self._plain = Products("plain", self._dtype)
        self._times: dict[tuple[str, int], float] = {("plain", 1): 1.0, ("plain", 32): 1.0}

    def time(self, name: str, rows: int) -> float:
        """The time of a format, of which a plain weight takes 1: the median of pairs."""
        if (name, rows) not in self._times:
            products = Products(name, self._dtype)
            for count in (1, 16, 32):
                shares = []
                for _ in range(self._rounds):
                    before = self._plain.seconds(count)
                    shares.append(products.seconds(count) / before)
                self._times[name, count] = statistics.median(shares)
        return self._times[name, rows]


def main() -> None:
    """Prints a line for each format."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", help="names; none is all")
    parser.add_argument("--dtype", default="bfloat16", help="of rows and plain weights")
    parser.add_argument("--rounds", type=int, default=15, help="of each format; 15")
    flags = parser.parse_args()
    torch.set_num_threads(read_machine().physical_cores)
    speeds = Speeds(flags.dtype, flags.rounds)
    print("| format | bits a number | 1 row | 16 rows | 32 rows |")
    print("| --- | ---: | ---: | ---: | ---: |")
    numbers = sum(n * k for n, k in SHAPES)
    for name in flags.formats or [format.name for format in (*KNOWN, *SUPER_FORMATS)]:
        bits = 8 * sum(parse(name).num_bytes(n, k, 2) for n, k in SHAPES) / numbers
        times = " | ".join(f"{1 / speeds.time(name, rows):.2f}" for rows in (1, 16, 32))
        print(f"| {name} | {bits:.2f} | {times} |", flush=True)


if __name__ == "__main__":
    main()
