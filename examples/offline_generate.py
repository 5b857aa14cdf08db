"""Generates for a few prompts at once: `python examples/offline_generate.py <folder of a checkpoint>`."""

from __future__ import annotations

import sys

from quire import LLM, SamplingParams

PROMPTS = ["The river runs", "When the bell rings,", "def add(first, second):"]


def main(model: str) -> None:
    """Prints one greedy and two sampled continuations of each prompt."""
    greedy = SamplingParams(temperature=0.0, max_tokens=32)
    sampled = SamplingParams(n=2, temperature=0.8, top_p=0.95, seed=7, max_tokens=32)
    with LLM(model) as llm:
        for params in (greedy, sampled):
            for answer in llm.generate(PROMPTS, params, use_tqdm=False):
                for choice in answer.outputs:
                    print(f"{answer.prompt!r} -> {choice.text!r} ({choice.finish_reason})")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
