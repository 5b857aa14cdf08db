"""Texts continued with the official client: `python examples/clients/openai_completions.py [base URL]`."""

from __future__ import annotations

import sys

from openai import OpenAI


def main(base_url: str) -> None:
    """Prints two answers at once, one in pieces, and the log-probabilities of a prompt."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    prompts = ["The capital of France is", "The capital of Italy is"]
    whole = client.completions.create(model=model, prompt=prompts, max_tokens=8, temperature=0)
    for prompt, choice in zip(prompts, whole.choices):
        print(f"{prompt}{choice.text}")
    pieces = client.completions.create(
        model=model, prompt=prompts[0], max_tokens=8, temperature=0, stream=True
    )
    print("".join(piece.choices[0].text for piece in pieces))
    scored = client.completions.create(
        model=model, prompt="The capital of France is Paris.", max_tokens=0, echo=True, logprobs=0
    )
    logprobs = scored.choices[0].logprobs
    assert logprobs is not None
    for token, logprob in list(zip(logprobs.tokens or (), logprobs.token_logprobs or ()))[-2:]:
        print(f"{token!r} {logprob:.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
