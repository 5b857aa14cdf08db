"""Constrained answers of a running server.

`python examples/structured_outputs_online.py [--constraint NAME ...] [--stream] [--reasoning] [--url URL]`;
without names every constraint is asked for in turn.
"""

from __future__ import annotations

import argparse
import enum
from typing import Any

from openai import OpenAI
from pydantic import BaseModel, ConfigDict


class Capital(enum.StrEnum):
    """The answers that are allowed."""

    PARIS = "Paris"
    ROME = "Rome"
    OSLO = "Oslo"


class Country(BaseModel):
    """A country; its schema is what the answer has to fit."""

    model_config = ConfigDict(extra="forbid")
    capital: Capital


QUESTION = "What is the capital of France?"
SCHEMA = {"name": "country", "schema": Country.model_json_schema(), "strict": True}
CALL = {
    "type": "tag",
    "begin": "<country>",
    "content": {"type": "json_schema", "json_schema": SCHEMA["schema"]},
    "end": "</country>",
}
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "choice": {"structured_outputs": {"choice": [one.value for one in Capital]}},
    "regex": {"structured_outputs": {"regex": r"The capital of [A-Z][a-z]{2,9} is [A-Z][a-z]{2,9}\."}},
    "json": {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    "json_object": {"response_format": {"type": "json_object"}, "max_tokens": 24},
    "grammar": {"structured_outputs": {"grammar": 'root ::= "It is " city "."\ncity ::= "Paris" | "Rome"'}},
    "structural_tag": {
        "response_format": {"type": "structural_tag", "format": CALL}
    },
}  # fmt: skip


def ask(client: OpenAI, name: str, *, stream: bool, reasoning: bool) -> str:
    """The answer under one constraint, printed as it comes where it is streamed."""
    given = dict(CONSTRAINTS[name])
    body = {"chat_template_kwargs": {"enable_thinking": reasoning}}
    body |= {key: given.pop(key) for key in ("structured_outputs",) if key in given}
    asked: Any = {
        "model": client.models.list().data[0].id,
        "messages": [{"role": "user", "content": QUESTION}],
        "temperature": 0,
        "extra_body": body,
        **given,
    }
    if not stream:
        message = client.chat.completions.create(**asked).choices[0].message
        if reasoning:
            print(f"{name}: ({(getattr(message, 'reasoning', None) or '').strip()})")
        print(f"{name}: {message.content}")
        return message.content or ""
    print(f"{name}: ", end="")
    text = ""
    for chunk in client.chat.completions.create(**asked, stream=True):
        delta = chunk.choices[0].delta
        thought = (getattr(delta, "reasoning", None) or "") if reasoning else ""
        text += delta.content or ""
        print(thought + (delta.content or ""), end="", flush=True)
    print()
    return text


def main() -> None:
    """Asks under each constraint that is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--constraint", nargs="+", choices=CONSTRAINTS, default=[*CONSTRAINTS])
    parser.add_argument("--stream", action="store_true", help="print the answer as it comes")
    parser.add_argument("--reasoning", action="store_true", help="let the model think first")
    parser.add_argument("--url", default="http://127.0.0.1:8000/v1")
    options = parser.parse_args()
    client = OpenAI(base_url=options.url, api_key="none")
    for name in options.constraint:
        text = ask(client, name, stream=options.stream, reasoning=options.reasoning)
        if name == "json":
            print(repr(Country.model_validate_json(text)))


if __name__ == "__main__":
    main()
