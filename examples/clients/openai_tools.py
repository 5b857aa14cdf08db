"""Calls of tools, whole and in pieces: `python examples/clients/openai_tools.py [base URL]`.

`auto` leaves the choice to the model, and needs a model that knows tools: with one of your own start
`quire serve MODEL --enable-auto-tool-choice --tool-call-parser NAME`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from openai import OpenAI

TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def get_weather(city: str) -> str:
    """What a program of yours would look up."""
    return json.dumps({"temperature": 21, "sky": "sunny"})


def main(base_url: str) -> None:
    """Prints the call, what is said of its result, and the same call as it comes in pieces."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked = client.chat.completions.create(
        model=model, messages=messages, tools=TOOLS, temperature=0
    )
    pieces = client.chat.completions.create(
        model=model, messages=messages, tools=TOOLS, temperature=0, stream=True
    )
    message = asked.choices[0].message
    messages.append(message.to_dict())
    for call in message.tool_calls or ():
        assert call.type == "function"
        print(call.function.name, call.function.arguments)
        result = get_weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    told = client.chat.completions.create(
        model=model, messages=messages, tools=TOOLS, temperature=0
    )
    print(told.choices[0].message.content)
    for piece in pieces:
        for change in piece.choices[0].delta.tool_calls or ():
            if change.function is not None:
                text = (change.function.name or "") + (change.function.arguments or "")
                print(text, end="", flush=True)
    print()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
