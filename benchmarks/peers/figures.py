"""Figures of a pass, ratios of passes that ran side by side, and the tables that show them.

Pure: what was measured comes in, text goes out. `run` does the measuring.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.workloads import WORKLOADS

UNITS = {
    "decode_tok_s": "decode tokens/s",
    "prompt_tok_s": "prompt tokens/s",
    "output_tok_s": "output tokens/s",
    "ttft_ms": "first token ms",
    "tpot_ms": "ms per token",
    "wall_s": "wall s",
}
"""What a figure is called in a table."""

COLUMNS = {
    "B1": ("decode_tok_s", "ttft_ms"),
    "B2": ("prompt_tok_s", "wall_s"),
    "B3": ("output_tok_s", "wall_s"),
    "B16": ("output_tok_s", "wall_s"),
    "B4": ("output_tok_s", "wall_s"),
    "B5": ("output_tok_s", "wall_s"),
    "B6": ("output_tok_s", "ttft_ms", "tpot_ms"),
}
"""Figures shown of a workload. The first, of which more is better, is the one that is compared."""


@dataclass(frozen=True)
class Pass:
    """One pass of one engine: its figures, the machine just before it, and the ids of its answers.

    others  share of the processors that other programs had during the pass.
    """

    figures: Mapping[str, float]
    read_gbps: float
    fma_tflops: float
    others: float
    token_ids: Sequence[Sequence[int]] = ()


@dataclass(frozen=True)
class EngineRun:
    """All passes of one engine on one workload; `failure` says why there are none."""

    engine: str
    version: str
    settings: Mapping[str, Any]
    passes: Sequence[Pass]
    failure: str = ""


def figures_of(
    workload: str, wall_s: float, requests: Sequence[Mapping[str, Any]]
) -> dict[str, float]:
    """The figures of a pass, from the requests of a result file (`engines/peer_session`).

    decode_tok_s and tpot_ms leave the first token out; first token and time per token are medians.
    """
    num_output = sum(one["num_output"] for one in requests)
    figures = {
        "wall_s": wall_s,
        "output_tok_s": num_output / wall_s,
        "prompt_tok_s": sum(one["num_prompt"] for one in requests) / wall_s,
        "ttft_ms": 1000 * statistics.median(one["times_s"][0] for one in requests),
    }
    gaps_s = [
        (one["times_s"][-1] - one["times_s"][0]) / (len(one["times_s"]) - 1)
        for one in requests
        if len(one["times_s"]) > 1
    ]
    if gaps_s:
        figures["tpot_ms"] = 1000 * statistics.median(gaps_s)
        figures["decode_tok_s"] = 1 / statistics.median(gaps_s)
    return {name: figures[name] for name in COLUMNS[workload]}


def ratios(ours: EngineRun, theirs: EngineRun, workload: str) -> list[float]:
    """Our figure over theirs, pass by pass: the two of a pair ran one after the other."""
    name = COLUMNS[workload][0]
    return [a.figures[name] / b.figures[name] for a, b in zip(ours.passes, theirs.passes)]


def agreement(ours: EngineRun, theirs: EngineRun) -> tuple[float, float] | None:
    """How alike the answers of two engines are; None without ids.

    The share of answers with the same first token, which tells a wrong model from a right one, and the mean
    share of an answer before the two part: engines round differently, and greedy choices follow for ever.
    """
    firsts, shares = [], []
    for a, b in zip(ours.passes, theirs.passes):
        for x, y in zip(a.token_ids, b.token_ids):
            same = next((at for at, (p, q) in enumerate(zip(x, y)) if p != q), min(len(x), len(y)))
            firsts.append(same > 0)
            shares.append(same / len(x))
    return (statistics.fmean(firsts), statistics.fmean(shares)) if shares else None


def spread(values: Sequence[float]) -> str:
    """The median and, of more than one value, the range."""
    digits = 2 if abs(statistics.median(values)) < 10 else 1
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def row(run: EngineRun, first: EngineRun, workload: str) -> str:
    """A line of the table; ratios are those of the first engine over this one."""
    names = COLUMNS[workload]
    if run.failure:
        return f"| {run.engine} | failed: {run.failure} |" + " |" * (len(names) + 4)
    cells = [spread([one.figures[name] for one in run.passes]) for name in names]
    ratio, same = "", ""
    if run is not first:
        ratio = spread(ratios(first, run, workload))
        alike = agreement(first, run)
        same = f"{alike[0]:.0%}, {alike[1]:.0%}" if alike else ""
    machine = (
        f"{statistics.median(one.read_gbps for one in run.passes):.1f} GB/s, "
        f"{statistics.median(one.fma_tflops for one in run.passes):.2f} TFLOP/s"
    )
    others = f"{max(one.others for one in run.passes):.0%}"
    cells += [ratio, same, str(len(run.passes)), machine, others]
    return f"| {run.engine} | " + " | ".join(cells) + " |"


def table(workload: str, runs: Sequence[EngineRun]) -> str:
    """A Markdown table of one workload; the first engine that ran is compared with each of the others."""
    first = next((run for run in runs if not run.failure), runs[0])
    heads = ["engine", *(UNITS[name] for name in COLUMNS[workload])]
    heads += [
        f"{first.engine} is times",
        "same first token, beginning",
        "passes",
        "machine before",
        "others had",
    ]
    lines = [
        f"**{workload}**: {WORKLOADS[workload].title}; median (least–most)",
        "",
        "| " + " | ".join(heads) + " |",
        "| " + " | ".join("---" for _ in heads) + " |",
        *(row(run, first, workload) for run in runs),
    ]
    return "\n".join(lines)
