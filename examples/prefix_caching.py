"""Asks twice about the same long text: `python examples/prefix_caching.py [folder or hub name]`."""

from __future__ import annotations

import sys

from quire import LLM, SamplingParams

TEXT = "The river runs through the old town and past the mill. " * 30
QUESTIONS = ["What runs through the town?", "What does it run past?"]


def main(model: str) -> None:
    """Prints how much of each prompt was found in the cache."""
    params = SamplingParams(temperature=0.0, max_tokens=8)
    with LLM(model, max_model_len=1024) as llm:
        for question in QUESTIONS:
            answer = llm.generate(TEXT + question, params, use_tqdm=False)[0]
            print(
                f"{answer.num_cached_tokens} of {len(answer.prompt_token_ids or ())} tokens were cached"
            )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
