"""`quire bench ops`: bytes and operations a second of single operations, beside the machine's limits.

Whole requests are measured by the other kinds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from quire.bench import op_cases
from quire.bench.report import table, write_json
from quire.hardware.cpu import read_machine
from quire.hardware.threads import set_threads
from quire.ops.cpu.library import library
from quire.ops.cpu.limits import ReadProbe, dot_rate
from quire.ops.formats import Format, parse
from quire.ops.registry import Table
from quire.protocol.errors import SettingsError

_CASES = ("linear", "attention", "norm", "act_mul")


def main(argv: Sequence[str]) -> int:
    """Measures and prints; returns the exit code."""
    flags = _parser().parse_args(list(argv))
    sizes = [_size(text) for text in flags.linear.split(",")]
    rows = [_count(text) for text in flags.rows.split(",")]
    format = _format(flags.format)
    set_threads(flags.threads or read_machine().physical_cores)
    overrides = {"all": flags.provider} if flags.provider else {}
    choices = Table(overrides=overrides)
    dtype: torch.dtype = getattr(torch, flags.dtype)
    wanted = _CASES if flags.op is None else (flags.op,)
    cases: list[op_cases.Case] = []
    if "linear" in wanted:
        cases += [
            case for size in sizes for case in op_cases.linear(choices, dtype, format, size, rows)
        ]
    if "attention" in wanted:
        cases += op_cases.attention(choices, dtype)
    if "norm" in wanted:
        cases += op_cases.norms(choices, dtype, rows)
    if "act_mul" in wanted:
        cases += op_cases.act_mul(choices, dtype, rows)
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
    parser.add_argument(
        "--format",
        default="plain",
        help="stored form of weights: int8, int4_g128, fp8, int8_rows8...",
    )
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


def _format(name: str) -> Format:
    try:
        format = parse(name)
    except ValueError as error:
        raise SettingsError(f"--format: {error}") from None
    if format.kind == "super":
        raise SettingsError(
            f"--format {name}: floats are not rounded to super-blocks here; "
            "`python -m benchmarks.product_speed` times them"
        )
    return format


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


def _measure(case: op_cases.Case, limits: _Limits, repeats: int) -> dict[str, str | float]:
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
