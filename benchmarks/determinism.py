"""The determinism matrix in full: every family and dtype, 50 requests, at least 50 preemptions.

Run as `python -m benchmarks.determinism` from the repository; exits with 1 if a single bit differs.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.checkpoints import FAMILIES
from tests.e2e.driver import mixed_jobs
from tests.e2e.matrix import matrix

NUM_REQUESTS = 50
LONGEST = 700
MAX_TOKENS = 112
TIGHT_BLOCKS = {"llama": 120, "qwen3": 120, "gemma2": 140}


def main() -> int:
    """Prints a line for each cell; returns 1 if a bit differs or too little was preempted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="+", default=["llama", "qwen3", "gemma2"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    args = parser.parse_args()
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for family in args.families:
            path = FAMILIES[family](Path(folder) / family)
            for dtype in args.dtypes:
                jobs = mixed_jobs(
                    NUM_REQUESTS, vocab_size=400, longest=LONGEST, max_tokens=MAX_TOKENS
                )
                print(
                    f"{family} {dtype}: {len(jobs)} requests, prompts to {LONGEST} tokens, {MAX_TOKENS} new tokens"
                )
                started = time.monotonic()
                for cell in matrix(
                    path,
                    jobs,
                    dtype=dtype,
                    tight_blocks=TIGHT_BLOCKS[family],
                    longest=LONGEST + MAX_TOKENS,
                ):
                    print(
                        f"  {cell.name:44} different {cell.num_different:3} of {cell.num_sequences}"
                        f"  preemptions {cell.num_preemptions:4}  cached tokens {cell.num_cached_tokens:6}"
                        f"  {time.monotonic() - started:6.1f} s",
                        flush=True,
                    )
                    bad += cell.num_different
                    if cell.name.startswith("preempted") and cell.num_preemptions < 50:
                        print("  too few preemptions to prove anything")
                        bad += 1
    print(f"differing sequences in all: {bad}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
