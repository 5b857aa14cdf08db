"""Reasoning apart from the answer, whole and in pieces: `python examples/clients/openai_reasoning.py [base URL]`.

With a model of your own start `quire serve MODEL --reasoning-parser NAME`.
"""

from __future__ import annotations

import sys
from typing import Any

from openai import OpenAI

QUESTION: Any = [{"role": "user", "content": "What is 3 plus 4?"}]


def main(base_url: str) -> None:
    """Prints what was thought and what was said, twice."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    asked: Any = {
        "model": model,
        "messages": QUESTION,
        "temperature": 0,
        "extra_body": {"chat_template_kwargs": {"enable_thinking": True}},
    }
    message = client.chat.completions.create(**asked).choices[0].message
    print("thought:", message.reasoning.strip())
    print("said:", message.content.strip())
    thought = said = ""
    for piece in client.chat.completions.create(**asked, stream=True):
        delta = piece.choices[0].delta
        thought += getattr(delta, "reasoning", None) or ""
        said += delta.content or ""
    print("in pieces:", thought.strip(), "->", said.strip())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
