"""Asks a running server with the official client: `python examples/openai_client.py [base URL]`.

Start the server first: `quire serve <folder of a checkpoint>`.
"""

from __future__ import annotations

import sys

from openai import OpenAI


def main(base_url: str) -> None:
    """One whole answer, then one in pieces."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    answer = client.completions.create(
        model=model, prompt="The river runs", max_tokens=24, temperature=0
    )
    print(repr(answer.choices[0].text), answer.usage)
    pieces = client.completions.create(
        model=model, prompt="Snow fell on the mountain", max_tokens=24, seed=1, stream=True
    )
    for piece in pieces:
        print(repr(piece.choices[0].text), end=" ", flush=True)
    print()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
