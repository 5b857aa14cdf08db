"""Gaps of eight running streams while a prompt of 20,000 tokens is computed beside them.

Run as `python -m benchmarks.long_prompt [--threads N]` from the repository, on a llama shape of two
layers. Ends with 1 if a gap is longer than a second. `tests/e2e/test_long_prompt.py` holds what does
not depend on a clock.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.checkpoints import FAMILIES
from tests.e2e.driver import Job, engine

MAX_LEN = 32_768
NUM_STREAMS = 8
LONG = 20_000
LONGEST_GAP_S = 1.0


def measure(threads: int) -> tuple[float, list[float]]:
    """(seconds that the long prompt took, the gaps between two tokens of any stream in that time)."""
    rng = random.Random(0)

    def job(length: int, max_tokens: int) -> Job:
        prompt = tuple(rng.randrange(5, 400) for _ in range(length))
        params = {"max_tokens": max_tokens, "temperature": 0.0, "ignore_eos": True}
        return Job(prompt, params, seed=0)

    with tempfile.TemporaryDirectory() as folder:
        model = FAMILIES["llama"](Path(folder) / "llama", max_len=MAX_LEN)
        flat = {"max_model_len": MAX_LEN, "kv_cache_memory_bytes": 256 << 20, "threads": threads}
        with engine(model, **flat) as client:
            for number in range(NUM_STREAMS):
                client.add(job(50, 4000).request(f"stream-{number}"))
            for _ in range(20):
                client.step()
            client.add(job(LONG, 2).request("long"))
            last: dict[str, float] = {}
            gaps: list[float] = []
            begun = time.perf_counter()
            while outputs := client.step():
                now = time.perf_counter()
                for update in outputs.updates:
                    if update.request_id != "long":
                        gaps.append(now - last.get(update.request_id, now))
                        last[update.request_id] = now
                if any(u.request_id == "long" and u.finish_reason for u in outputs.updates):
                    break
            return time.perf_counter() - begun, gaps


def main() -> int:
    """Prints the longest and the median gap in seconds; 0 if the longest is short enough."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2, help="arithmetic threads (default: 2)")
    threads = parser.parse_args().threads
    load = os.getloadavg()[0]
    took, gaps = measure(threads)
    print(
        f"{LONG} tokens beside {NUM_STREAMS} streams took {took:.1f} s with {threads} threads; longest "
        f"gap {max(gaps):.2f} s (limit {LONGEST_GAP_S:g}), median {statistics.median(gaps):.2f} s; "
        f"load of the machine before: {load:.1f}"
    )
    return int(max(gaps) > LONGEST_GAP_S)


if __name__ == "__main__":
    sys.exit(main())
