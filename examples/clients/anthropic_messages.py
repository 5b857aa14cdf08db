"""A stream, forms and tools with Anthropic's client: `python examples/clients/anthropic_messages.py [URL]`."""

from __future__ import annotations

import sys
from typing import Any, Literal

from anthropic import Anthropic, beta_tool
from pydantic import BaseModel

QUESTION: Any = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = {"temperature": 0}


class Answer(BaseModel):
    """What an answer must be."""

    capital: Literal["Paris", "Rome"]


@beta_tool
def get_weather(city: str) -> str:
    """Get the weather"""
    print("get_weather", city)
    return '{"temperature": 21, "sky": "sunny"}'


def main(url: str) -> None:
    """Prints the answers; the URL is the server's own, without /v1."""
    client = Anthropic(base_url=url, api_key="none")
    model = client.models.list().data[0].id
    asked: Any = {"model": model, "max_tokens": 200, "extra_body": GREEDY}
    with client.messages.stream(**asked, messages=QUESTION) as stream:
        for text in stream.text_stream:
            print(text, end="", flush=True)
    print()
    counted = client.messages.count_tokens(model=model, messages=QUESTION)
    print(counted.input_tokens, "tokens")
    parsed = client.messages.parse(**asked, messages=QUESTION, output_format=Answer)
    print(repr(parsed.parsed_output))
    runner = client.beta.messages.tool_runner(
        **asked,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[get_weather],
    )
    print(runner.until_done().content[-1].text)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000")
