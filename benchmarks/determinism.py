"""The determinism matrix in full: models, number types and instruction sets, each run in every way.

Run as `python -m benchmarks.determinism` from the repository; ends with 1 if a single bit differs, or if a
cell proves nothing. The ways are in `tests/e2e/matrix.py`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from quire.config import env
from quire.hardware.threads import bound_waiting
from tests.checkpoints import make
from tests.e2e.driver import Job, mixed_jobs
from tests.e2e.matrix import FORMATS, MODELS, SETTINGS, Way, matrix, tight_tokens, ways

SHORTEST = 16
FULL = {"prompts": 200, "longest": 2500, "max_tokens": 64}
QUICK = {"prompts": 24, "longest": 300, "max_tokens": 40}


def main(words: list[str] | None = None) -> int:
    """Prints a line for each cell; returns 1 if a bit differs or a cell proves nothing."""
    words = sys.argv[1:] if words is None else words
    args = _parse(words)
    if args.isa is not None:
        return max(_run_isa(isa, words) for isa in args.isa.split(","))
    bound_waiting()
    started, bad = time.monotonic(), 0
    jobs = mixed_jobs(
        args.prompts,
        vocab_size=400,
        shortest=SHORTEST,
        longest=args.longest,
        max_tokens=args.max_tokens,
    )
    with tempfile.TemporaryDirectory() as folder:
        for model in args.models:
            family, fields = MODELS[model]
            path = make(family, Path(folder) / model, **fields)
            for number_type in args.formats:
                title = f"{_isa()} {model} {number_type}"
                numbers = FORMATS[number_type] | SETTINGS.get(model, {})
                bad += _run(path, jobs, _plan(model, args), title, args, numbers)
    print(f"{_isa()}: bad cells {bad}; {time.monotonic() - started:.0f} s", flush=True)
    return 1 if bad else 0


def _parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=["bfloat16", "int8", "int4"]
    )
    parser.add_argument(
        "--isa", help="a,b,…: a process for each, with QUIRE_CPU_ISA; none: torch's"
    )
    parser.add_argument("--prompts", type=int, help="requests; half are sampled, a quarter twice")
    parser.add_argument("--longest", type=int, help=f"tokens; prompts have {SHORTEST} to so many")
    parser.add_argument("--max-tokens", type=int, help="new tokens of each sequence")
    parser.add_argument(
        "--cells", nargs="+", default=[""], help="only cells with one of these words, and the first"
    )
    parser.add_argument("--no-restart", action="store_true", help="no cells in new processes")
    parser.add_argument("--quick", action="store_true", help="a small form, of fewer cells")
    args = parser.parse_args(words)
    for name, value in (QUICK if args.quick else FULL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def _run_isa(isa: str, words: list[str]) -> int:
    """The same command in a new process with forced kernels; `--isa` there would be another one."""
    rest = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if before != "--isa" and word.partition("=")[0] != "--isa"
    ]
    command = [sys.executable, "-m", "benchmarks.determinism", *rest]
    return subprocess.run(command, env=env.for_child(QUIRE_CPU_ISA=isa), check=False).returncode


def _isa() -> str:
    from quire.ops.cpu.library import library

    found = library()
    return found.isa if found else "none"


def _run(
    path: Path,
    jobs: list[Job],
    plan: list[Way],
    title: str,
    args: argparse.Namespace,
    numbers: dict[str, Any],
) -> int:
    """One model in one number type; the number of cells that differ or prove nothing."""
    longest = args.longest + args.max_tokens
    print(f"{title}: {len(jobs)} requests of {SHORTEST} to {args.longest} tokens", flush=True)
    bad, started = 0, time.monotonic()
    for cell in matrix(path, jobs, plan, longest=longest, **numbers):
        replayed = "-" if cell.num_replayed is None else cell.num_replayed
        print(
            f"  {cell.name:56} tokens {cell.num_tokens:5} logprobs {cell.num_logprobs:5} sequences "
            f"{cell.num_different:3} of {cell.num_sequences} differ; preemptions {cell.num_preemptions:4} "
            f"cached {cell.num_cached_tokens:6} replayed {replayed:>5} {time.monotonic() - started:6.1f} s",
            flush=True,
        )
        for fault in filter(None, (cell.example, cell.weakness)):
            print(f"    {fault}", flush=True)
        bad += bool(cell.num_different or cell.weakness)
    return bad


def _plan(model: str, args: argparse.Namespace) -> list[Way]:
    tight = tight_tokens(model, args.longest + args.max_tokens)
    first, *others = ways(tight_tokens=tight, is_small=args.quick, restart=not args.no_restart)
    return [first, *(way for way in others if any(word in way.name for word in args.cells))]


if __name__ == "__main__":
    sys.exit(main())
