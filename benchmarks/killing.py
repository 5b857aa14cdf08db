"""The kill test in full: 16 running streams, the engine process killed 20 times at random moments.

Run as `python -m benchmarks.killing` from the repository; ends with 1 if one stream differs by a bit from
an undisturbed run. The machinery, and the small form, are in `tests/e2e/`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from pathlib import Path

from tests.e2e.killing import ask_all, ask_while_killing, bodies, has_schemas, serving

KINDS = ("tools and stops", "JSON schema", "n = 2, logprobs", "no seed")


def main() -> int:
    """Prints a line for each kind of stream; returns 1 if any differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--max-tokens", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", type=Path, help="a checkpoint; default: the demo model")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f} before the run", flush=True)
    with serving("--engine-restarts", "1000", model=args.model) as server:
        schemas = has_schemas(server)
        if not schemas:
            print("this build constrains no output: those streams are plain")
        asked = bodies(args.streams, max_tokens=args.max_tokens, with_schema=schemas)
        killed = asyncio.run(
            ask_while_killing(server, asked, args.kills, seed=args.seed, longest_wait_s=2.0)
        )
        bad = 0
        rounds = len(killed.answers) // len(asked)
        for turn in range(rounds):
            answers = killed.answers[turn * len(asked) : (turn + 1) * len(asked)]
            seeded = [
                body if "seed" in body else body | {"seed": answer.choices[0]["seed"]}
                for body, answer in zip(asked, answers, strict=True)
            ]
            undisturbed = asyncio.run(ask_all(server, seeded))
            for kind, name in enumerate(KINDS):
                pairs = list(zip(answers, undisturbed, strict=True))[kind::4]
                same = sum(a.is_done and a.error is None and a.same_as(b) for a, b in pairs)
                tokens = sum(len(one["ids"]) for a, _ in pairs for one in a.choices.values())
                print(f"round {turn}: {name:16} {same}/{len(pairs)} equal, {tokens} tokens")
                bad += len(pairs) - same
        away = sorted(killed.away_s)
        print(
            f"{args.kills} kills and {killed.num_during_start} more while starting, "
            f"{server.metric('quire:engine_restarts_total'):.0f} restarts; away for "
            f"{statistics.median(away):.2f} s in the median, {away[-1]:.2f} s at most; longest gap of a "
            f"stream {max(a.longest_gap_s for a in killed.answers):.2f} s; "
            f"{bad} of {len(killed.answers)} streams differ"
        )
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
