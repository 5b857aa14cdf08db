"""A chat, whole, in pieces and from asyncio: `python examples/clients/openai_chat.py [base URL]`."""

from __future__ import annotations

import asyncio
import sys

from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

QUESTION: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France?"}
]


async def several(base_url: str, model: str, cities: list[str]) -> list[str | None]:
    """Several questions at once; the server runs them as one batch."""
    async with AsyncOpenAI(base_url=base_url, api_key="none") as client:
        asked = [
            client.chat.completions.create(
                model=model,
                messages=[{"role": "user", "content": f"What is the capital of {name}?"}],
                temperature=0,
            )
            for name in cities
        ]
        return [one.choices[0].message.content for one in await asyncio.gather(*asked)]


def main(base_url: str) -> None:
    """Prints the answers."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    answer = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        temperature=0,
        extra_body={"top_k": 20},  # fields that only this kind of server has go here
    )
    print(answer.choices[0].message.content)
    with client.chat.completions.stream(model=model, messages=QUESTION, temperature=0) as stream:
        for event in stream:
            if event.type == "content.delta":
                print(event.delta, end="", flush=True)
    print()
    for text in asyncio.run(several(base_url, model, ["Italy", "Japan"])):
        print(text)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
