"""Responses: a chain, a stream, a tool, the background: `python examples/clients/openai_responses.py [base URL]`."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from openai import OpenAI

TOOLS: list[Any] = [
    {
        "type": "function",
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    }
]


def main(base_url: str) -> None:
    """Prints the answers."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    with client.responses.stream(
        model=model, input="What is the capital of France?", temperature=0
    ) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                print(event.delta, end="", flush=True)
    print()
    asked = client.responses.create(
        model=model, input="What is the weather in Paris?", tools=TOOLS, temperature=0
    )
    (call,) = (item for item in asked.output if item.type == "function_call")
    print(call.name, call.arguments)
    told = client.responses.create(
        model=model,
        previous_response_id=asked.id,  # what came before is kept by the server
        input=[
            {
                "type": "function_call_output",
                "call_id": call.call_id,
                "output": json.dumps({"temperature": 21, "sky": "sunny"}),
            }
        ],
        tools=TOOLS,
        temperature=0,
    )
    print(told.output_text)
    later = client.responses.create(
        model=model, input="What is the capital of Italy?", temperature=0, background=True
    )
    while later.status in ("queued", "in_progress"):
        time.sleep(0.1)
        later = client.responses.retrieve(later.id)
    print(later.status, later.output_text)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
