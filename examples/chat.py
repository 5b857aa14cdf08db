"""Answers two conversations at once: `python examples/chat.py [folder or hub name of a chat model]`."""

from __future__ import annotations

import sys

from quire import LLM, SamplingParams

SYSTEM = {"role": "system", "content": "You answer briefly."}
CONVERSATIONS = [
    [SYSTEM, {"role": "user", "content": "What is the capital of France?"}],
    [SYSTEM, {"role": "user", "content": "What is the chemical symbol of gold?"}],
]


def main(model: str) -> None:
    """Prints each question with its answer."""
    with LLM(model, max_model_len=1024) as llm:
        params = SamplingParams(temperature=0.0, max_tokens=64)
        for asked, answer in zip(CONVERSATIONS, llm.chat(CONVERSATIONS, params, use_tqdm=False)):
            print(f"{asked[-1]['content']} -> {answer.outputs[0].text}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
