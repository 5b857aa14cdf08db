"""Measures what one turn of the scheduler costs, with a worker that answers at once.

Run as `python -m benchmarks.scheduler`. How the model computes is measured elsewhere.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import time
from collections import deque

from quire.engine.kvcache.manager import CacheManager
from quire.engine.loop import COLLECT_AFTER
from quire.engine.request import Request
from quire.engine.scheduler.scheduler import Scheduler
from quire.protocol.cache import CacheGroup, CacheLayout
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest
from quire.protocol.step import RowResult, StepPlan, StepResult

VOCAB_SIZE = 32_000
clock = time.thread_time
"""CPU time of this thread: what other programs on the machine do counts less."""


def two_groups(block_size: int, num_slabs: int) -> CacheLayout:
    """A full and a sliding window group that share slabs of 16 blocks of the first."""
    full = CacheGroup(kind="full", layers=(0, 2), block_size=block_size, bytes_per_token=64)
    window = CacheGroup(
        kind="sliding_window", layers=(1,), block_size=block_size, bytes_per_token=32, window=128
    )
    return CacheLayout(groups=(full, window), slab_bytes=16 * full.block_bytes, num_slabs=num_slabs)


def answer(plan: StepPlan, rng: random.Random) -> StepResult:
    """A token for every row that samples."""
    tokens = rng.choices(range(VOCAB_SIZE), k=len(plan.rows))
    rows = [
        RowResult(row=row, token_ids=[token] if sampled else [])
        for row, token, sampled in zip(plan.rows, tokens, plan.samples, strict=True)
    ]
    return StepResult(step=plan.step, rows=rows)


def measure_steps(
    *,
    running: int,
    waiting: int,
    turnover: float,
    depth: int,
    steps: int,
    block_size: int,
    num_slabs: int,
) -> tuple[float, float, float, float]:
    """Median and 99th percentile of schedule() + update(), the median of settle(), all in ms, and of
    add() in us.

    settle() runs where the engine calls it: when a plan is with the worker, before its result is due.
    add() runs between steps, when a request arrives; the keys of the prompt's blocks are made there.
    Every request lives 1 / turnover steps, so that this share of the running ones arrives and
    finishes in a step; `waiting` others queue behind them all the time.
    """
    rng = random.Random(1)
    scheduler = Scheduler(
        layout=two_groups(block_size, num_slabs),
        max_num_seqs=running,
        max_num_batched_tokens=16_384,
        max_model_len=4096,
    )
    life = round(1 / turnover)
    added = 0

    def add() -> None:
        nonlocal added
        prompt = rng.choices(range(VOCAB_SIZE), k=rng.randint(32, 224))
        params = SamplingParams(max_tokens=life, ignore_eos=True)
        request = EngineRequest(request_id=f"r{added}", prompt_token_ids=prompt, params=params)
        added += 1
        begun = clock()
        scheduler.add(request)
        adding.append((clock() - begun) * 1e6)

    adding: list[float] = []
    taken: list[float] = []
    settling: list[float] = []
    flights: deque[tuple[StepPlan, StepResult]] = deque()
    # As in the engine's process.
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)
    for turn in range(steps + 3 * life):
        # At first rows fill up a share at a time, so that the requests do not end all together.
        while scheduler.stats().num_waiting < (waiting if turn > life else running * turnover):
            add()
        begun = clock()
        while len(flights) < depth and (plan := scheduler.schedule()) is not None:
            middle = clock()
            scheduler.settle()
            settled = clock()
            settling.append((settled - middle) * 1e3)
            flights.append((plan, answer(plan, rng)))
            begun += clock() - middle
        scheduler.update(*flights.popleft())
        if turn >= 3 * life:
            taken.append((clock() - begun) * 1e3)
    taken.sort()
    return (
        statistics.median(taken),
        taken[int(len(taken) * 0.99)],
        statistics.median(settling),
        statistics.median(adding),
    )


def measure_lookup(num_tokens: int, block_size: int) -> tuple[float, float]:
    """Time of a prefix look-up that finds everything, keys hashed anew and keys known, in ms."""
    layout = two_groups(block_size, 4096)
    manager = CacheManager(
        layout, max_model_len=num_tokens + 1, max_chunk=num_tokens, hash_algo="sha256"
    )
    prompt = random.Random(2).choices(range(VOCAB_SIZE), k=num_tokens)
    source = EngineRequest(request_id="r", prompt_token_ids=prompt, params=SamplingParams())

    def sequence() -> Request:
        return Request(
            source,
            SamplingParams(),
            rank=0,
            number=0,
            max_model_len=num_tokens + 1,
            caching=True,
            now_s=0.0,
        )

    first = sequence().make_sequence(0)
    manager.start(first, 0, num_tokens)
    first.computed = num_tokens
    manager.publish(first)
    hashed, known = [], []
    for _ in range(20):
        other = sequence().make_sequence(0)
        for times in (hashed, known):
            begun = clock()
            hit = manager.match(other)
            times.append((clock() - begun) * 1e3)
            assert hit == (num_tokens - 1) // block_size
    return statistics.median(hashed), statistics.median(known)


def main() -> None:
    """Prints the figures; targets: median 1 ms, 99th percentile 3 ms, look-up 3 ms."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--running", type=int, default=256)
    parser.add_argument("--waiting", type=int, default=1000)
    parser.add_argument("--turnover", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--wall", action="store_true", help="wall time instead of CPU time")
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument(
        "--slabs", type=int, default=4096, help="280 are full, so that every block taken evicts one"
    )
    args = parser.parse_args()
    global clock
    clock = time.perf_counter if args.wall else time.thread_time
    for depth in (1, 2):
        for turnover in (args.turnover, 0.001):
            median, high, settling, adding = measure_steps(
                running=args.running,
                waiting=args.waiting,
                turnover=turnover,
                depth=depth,
                steps=args.steps,
                block_size=args.block_size,
                num_slabs=args.slabs,
            )
            print(
                f"depth {depth}: {args.running} running, {args.waiting} waiting, {turnover:.1%} come "
                f"and go: schedule + update median {median:.2f} ms, p99 {high:.2f} ms; "
                f"settle, while the worker computes, {settling:.2f} ms; add median {adding:.0f} us a request"
            )
    for block_size in (16, 32):
        hashed, known = measure_lookup(32_768, block_size)
        print(
            f"prefix look-up of 32768 tokens, block size {block_size}: {hashed:.2f} ms with hashing, "
            f"{known:.2f} ms without"
        )


if __name__ == "__main__":
    main()
