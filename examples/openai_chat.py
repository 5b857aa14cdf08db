"""A chat in pieces and a call of a tool, with the official client: `python examples/openai_chat.py [base URL]`.

Start the server first: `quire serve`, which serves the demo model, or
`quire serve MODEL --enable-auto-tool-choice --tool-call-parser NAME`.
"""

from __future__ import annotations

import json
import sys

from openai import OpenAI

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def main(base_url: str) -> None:
    """Prints a streamed answer, the call that the model makes, and its answer to the result."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    question = [{"role": "user", "content": "What is the capital of France?"}]
    with client.chat.completions.stream(model=model, messages=question, temperature=0) as stream:
        for event in stream:
            if event.type == "content.delta":
                print(event.delta, end="", flush=True)
    print()
    messages = [{"role": "user", "content": "What is the weather in Paris?"}]
    asked = client.chat.completions.create(
        model=model, messages=messages, tools=[WEATHER], temperature=0
    )
    message = asked.choices[0].message
    for call in message.tool_calls or ():
        print(f"{call.function.name} {json.loads(call.function.arguments)}")
        messages.append(message.model_dump(exclude_none=True))
        result = json.dumps({"temperature": 21, "sky": "clear"})
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    told = client.chat.completions.create(
        model=model, messages=messages, tools=[WEATHER], temperature=0
    )
    print(told.choices[0].message.content)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
