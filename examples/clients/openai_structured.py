"""Answers in a form: `python examples/clients/openai_structured.py [base URL]`."""

from __future__ import annotations

import sys
from typing import Any, Literal

from openai import OpenAI
from pydantic import BaseModel

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]


class Answer(BaseModel):
    """What the answer must be; the output is held to its schema while it is made."""

    capital: Literal["Paris", "Rome", "Oslo"]


def main(base_url: str) -> None:
    """Prints an object, a choice, and a text that a regular expression allows."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    parsed = client.chat.completions.parse(
        model=model, messages=QUESTION, response_format=Answer, temperature=0
    )
    print(repr(parsed.choices[0].message.parsed))
    for constraint in ({"choice": ["Paris", "Rome"]}, {"regex": r"The capital .{1,30}\."}):
        answer = client.chat.completions.create(
            model=model,
            messages=QUESTION,
            temperature=0,
            extra_body={"structured_outputs": constraint},
        )
        print(answer.choices[0].message.content)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
