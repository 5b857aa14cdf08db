"""`quire bench ops`: bytes and operations a second of single operations, beside the machine's limits.

Whole requests are measured by the other kinds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from quire.bench.report import table, write_json
from quire.hardware.cpu import read_machine
from quire.hardware.threads import set_threads
from quire.ops.attention import PAGED_ATTENTION, AttentionStep, CachePlace
from quire.ops.cpu.library import library
from quire.ops.cpu.limits import ReadProbe, dot_rate
from quire.ops.elementwise import ACT_MUL
from quire.ops.linear import LINEAR
from quire.ops.norm import ADD_RMS_NORM
from quire.ops.registry import Table
from quire.protocol.errors import SettingsError

_COLD_BYTES = 256 << 20  # weights are cycled over so many bytes, so that none is still in a cache
_CASES = ("linear", "attention", "norm", "act_mul")


@dataclass(frozen=True)
class Case:
    """One line of the report: what is run, and what a run reads or writes and computes."""

    name: str
    size: str
    run: Callable[[], object]
    num_bytes: float
    num_operations: float


def main(argv: Sequence[str]) -> int:
    """Measures and prints; returns the exit code."""
    flags = _parser().parse_args(list(argv))
    sizes = [_size(text) for text in flags.linear.split(",")]
    rows = [_count(text) for text in flags.rows.split(",")]
    set_threads(flags.threads or read_machine().physical_cores)
    overrides = {"all": flags.provider} if flags.provider else {}
    choices = Table(overrides=overrides)
    dtype: torch.dtype = getattr(torch, flags.dtype)
    wanted = _CASES if flags.op is None else (flags.op,)
    cases: list[Case] = []
    if "linear" in wanted:
        cases += [case for size in sizes for case in _linear(choices, dtype, size, rows)]
    if "attention" in wanted:
        cases += _attention(choices, dtype)
    if "norm" in wanted:
        cases += _norms(choices, dtype, rows)
    if "act_mul" in wanted:
        cases += _act_mul(choices, dtype, rows)
    limits = _Limits(flags.dtype)
    lines = [_measure(case, limits, flags.repeats) for case in cases]
    _print(lines, choices, limits)
    if flags.output_json:
        write_json(Path(flags.output_json), {"limits": limits.as_dict(), "operations": lines})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quire bench ops",
        description="Bytes and operations a second of single operations, and the share of what the "
        "machine reaches in the same run: reading memory, multiplying registers.",
    )
    parser.add_argument("--op", choices=_CASES, help="only this operation")
    parser.add_argument(
        "--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"], help="of numbers"
    )
    parser.add_argument("--linear", default="12288x1024", help="sizes NxK, separated by commas")
    parser.add_argument("--rows", default="1,4,16,32,64,512,2048", help="rows, with commas")
    parser.add_argument("--provider", help="cpu, torch or reference instead of the default")
    parser.add_argument("--threads", type=int, help="default: the physical cores")
    parser.add_argument("--repeats", type=int, default=5, help="runs of which the median counts")
    parser.add_argument("--output-json", metavar="FILE", help="write the figures there too")
    return parser


def _size(text: str) -> tuple[int, int]:
    columns, _, depth = text.partition("x")
    return _count(columns), _count(depth)


def _count(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise SettingsError(f"{text!r} is no size; write a whole number from 1 on")
    return int(text)


class _Limits:
    """The machine's own figures, taken beside each measurement: its speed moves."""

    def __init__(self, dtype: str) -> None:
        self._dtype = dtype
        self._probe = ReadProbe() if library() is not None else None
        self.reads: list[float] = []
        self.dots: list[float] = []

    def take(self) -> tuple[float, float]:
        """Bytes and operations a second, now; zeros without native kernels."""
        if self._probe is None:
            return 0.0, 0.0
        self.reads.append(self._probe.run())
        self.dots.append(dot_rate(self._dtype))
        return self.reads[-1], self.dots[-1]

    def as_dict(self) -> dict[str, float]:
        """Medians of the whole run."""
        if not self.reads:
            return {}
        return {
            "read_gb_s": statistics.median(self.reads) / 1e9,
            "dot_gflop_s": statistics.median(self.dots) / 1e9,
        }


def _measure(case: Case, limits: _Limits, repeats: int) -> dict[str, str | float]:
    case.run()
    seconds, reads, dots = [], [], []
    for _ in range(repeats):
        read, dot = limits.take()
        started = time.perf_counter()
        case.run()
        seconds.append(time.perf_counter() - started)
        reads.append(read)
        dots.append(dot)
    middle = statistics.median(seconds)
    moved, computed = case.num_bytes / middle, case.num_operations / middle
    read, dot = statistics.median(reads), statistics.median(dots)
    return {
        "operation": case.name,
        "size": case.size,
        "us": middle * 1e6,
        "gb_s": moved / 1e9,
        "gflop_s": computed / 1e9,
        "of_read": moved / read if read else 0.0,
        "of_dot": computed / dot if dot else 0.0,
    }


def _print(lines: list[dict[str, str | float]], choices: Table, limits: _Limits) -> None:
    head = ("operation", "size", "us", "GB/s", "GFLOP/s", "of reading", "of arithmetic")
    rows: list[Sequence[object]] = [head]
    for line in lines:
        rows.append(
            (
                line["operation"],
                line["size"],
                f"{line['us']:.1f}",
                f"{line['gb_s']:.1f}",
                f"{line['gflop_s']:.1f}",
                f"{line['of_read']:.2f}",
                f"{line['of_dot']:.2f}",
            )
        )
    print(table(rows))
    found = library()
    providers = sorted({f"{b.op.name}={b.provider}" for b in choices.bindings})
    print(f"\nproviders: {', '.join(providers)}; isa: {found.isa if found else 'none'}; ", end="")
    print(f"threads: {torch.get_num_threads()}")
    for name, value in limits.as_dict().items():
        print(f"{name}: {value:.1f}")


def _linear(
    choices: Table, dtype: torch.dtype, size: tuple[int, int], rows: list[int]
) -> Iterator[Case]:
    columns, depth = size
    product = choices.bind(LINEAR, str(dtype).removeprefix("torch."), N=columns, K=depth)
    num_bytes = columns * depth * dtype.itemsize
    copies = max(1, -(-_COLD_BYTES // num_bytes))
    weight = torch.randn(columns, depth).to(dtype)
    packed = [product.provider.pack(weight.clone()) for _ in range(copies)]
    for count in rows:
        x = torch.randn(count, depth).to(dtype)
        out = torch.empty(count, columns, dtype=dtype)
        used = packed if count <= 64 else packed[:2]

        def run(x: torch.Tensor = x, out: torch.Tensor = out, used: list[object] = used) -> None:
            for one in used:
                product(x, one, out=out)

        yield Case(
            "linear",
            f"{count} x {depth} x {columns}",
            run,
            float(len(used) * num_bytes),
            2.0 * len(used) * count * columns * depth,
        )


def _attention(choices: Table, dtype: torch.dtype) -> Iterator[Case]:
    """16 query heads over 8 kv heads of 128: decode steps of several contexts, and whole prompts."""
    heads, kv_heads, size, block = 16, 8, 128, 32
    attend = choices.bind(
        PAGED_ATTENTION, str(dtype).removeprefix("torch."), H=heads, K=kv_heads, D=size
    )
    provider = attend.provider
    for batch, queries, context in ((1, 1, 2048), (32, 1, 512), (1, 512, 512), (1, 2048, 2048)):
        blocks = -(-context // block)
        part = block * provider.bytes_per_token(kv_heads, size, size, dtype)
        buffer = torch.zeros(1, batch * blocks * part, dtype=torch.uint8)
        place = CachePlace(
            buffer=buffer,
            block_size=block,
            blocks_per_slab=batch * blocks,
            block_bytes=part,
            layer_offset=0,
        )
        cache = provider.view(place, kv_heads, size, size, dtype)
        plan = provider.new_plan(
            block_size=block,
            blocks_per_slab=batch * blocks,
            window=None,
            device=torch.device("cpu"),
        )
        table_of_blocks = np.arange(batch * blocks, dtype=np.int32).reshape(batch, blocks)
        steps = [context] if queries == 1 else []
        for count in [*steps, queries]:  # a decode step needs a written cache
            first = context - count
            slots = (np.arange(batch) * blocks * block)[:, None] + np.arange(first, context)
            step = AttentionStep(
                query_start=np.arange(batch + 1, dtype=np.int32) * count,
                seq_lens=np.full(batch, context, dtype=np.int32),
                block_table=table_of_blocks,
                slot_mapping=slots.reshape(-1).astype(np.int64),
            )
            provider.fill(plan, step)
            k = torch.randn(batch * count, kv_heads, size).to(dtype)
            attend.call("write", k, k, cache, plan)
        q = torch.randn(batch * queries, heads, size).to(dtype)
        out = torch.empty_like(q)

        def run(q: torch.Tensor = q, out: torch.Tensor = out, cache=cache, plan=plan) -> None:  # type: ignore[no-untyped-def]
            attend(q, cache, plan, scale=size**-0.5, window=None, softcap=0.0, sinks=None, out=out)

        seen = batch * (queries * context - queries * (queries - 1) / 2)
        yield Case(
            "attention",
            f"{batch} x {queries} over {context}",
            run,
            float(buffer.numel()),
            4.0 * seen * heads * size,
        )


def _norms(choices: Table, dtype: torch.dtype, rows: list[int]) -> Iterator[Case]:
    width = 1024
    norm = choices.bind(ADD_RMS_NORM, str(dtype).removeprefix("torch."), C=width)
    weight = torch.ones(width)
    for count in rows:
        x, residual = (torch.randn(count, width).to(dtype) for _ in range(2))
        out = torch.empty_like(x)

        def run(x: torch.Tensor = x, r: torch.Tensor = residual, out: torch.Tensor = out) -> None:
            norm(x, r, weight, eps=1e-6, out=out)

        yield Case(
            "add_rms_norm",
            f"{count} x {width}",
            run,
            4.0 * count * width * dtype.itemsize,
            5.0 * count * width,
        )


def _act_mul(choices: Table, dtype: torch.dtype, rows: list[int]) -> Iterator[Case]:
    width = 3072
    act = choices.bind(ACT_MUL, str(dtype).removeprefix("torch."), F=width)
    for count in rows:
        x = torch.randn(count, 2 * width).to(dtype)
        out = torch.empty(count, width, dtype=dtype)

        def run(x: torch.Tensor = x, out: torch.Tensor = out) -> None:
            act(x, act="silu", out=out)

        yield Case(
            "act_mul",
            f"{count} x {width}",
            run,
            3.0 * count * width * dtype.itemsize,
            6.0 * count * width,
        )
