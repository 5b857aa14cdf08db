"""Runs the scheduler's simulation for long: random load, tiny pools, faults, and a shadow of the cache.

Run as `python -m benchmarks.simulate`; the tests run a short form of the same. Exits with an error and
the seed at the first wrong answer.
"""

from __future__ import annotations

import argparse
import time

from tests.engine.simulation import Simulation


def main() -> None:
    """100,000 operations over 20 seeds by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--operations", type=int, default=100_000, help="over all seeds")
    parser.add_argument(
        "--check", action="store_true", help="check invariants after each operation"
    )
    args = parser.parse_args()
    begun = time.perf_counter()
    done = steps = preemptions = failures = 0
    for seed in range(args.first, args.first + args.seeds):
        simulation = Simulation(seed, check=args.check)
        try:
            simulation.run(args.operations // args.seeds)
        except BaseException as error:
            error.add_note(f"seed {seed}: {simulation.setting}")
            raise
        done += simulation.num_done
        steps += simulation.num_steps
        failures += simulation.num_failures
        preemptions += simulation.scheduler.stats().num_preemptions
    print(
        f"{args.operations} operations over {args.seeds} seeds: {done} requests, {steps} steps, "
        f"{preemptions} preemptions, {failures} failed steps, {time.perf_counter() - begun:.0f} s"
    )


if __name__ == "__main__":
    main()
