"""A tool and pieces with LiteLLM: `python examples/clients/litellm_tools.py [base URL]`.

Needs `pip install litellm`. `hosted_vllm/` before the model's name is LiteLLM's word for servers like this one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import litellm

litellm.suppress_debug_info = True

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


def main(base_url: str) -> None:
    """Prints a call, what is said of its result, the call from a stream, and an answer to a text."""
    server: Any = {
        "model": "hosted_vllm/quire-demo",
        "api_base": base_url,
        "api_key": "none",
        "temperature": 0,
    }
    messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
    message = litellm.completion(**server, messages=messages, tools=TOOLS).choices[0].message
    history = [*messages, message.model_dump(exclude_none=True)]
    for call in message.tool_calls or ():
        print(call.function.name, json.loads(call.function.arguments))
        result = json.dumps({"temperature": 21, "sky": "sunny"})
        history.append({"role": "tool", "tool_call_id": call.id, "content": result})
    told = litellm.completion(**server, messages=history, tools=TOOLS)
    print(told.choices[0].message.content)
    pieces = list(litellm.completion(**server, messages=messages, tools=TOOLS, stream=True))
    whole = litellm.stream_chunk_builder(pieces, messages=messages)
    print(whole.choices[0].message.tool_calls[0].function.arguments)
    question: Any = [{"role": "user", "content": "What is the capital of France?"}]
    print(litellm.completion(**server, messages=question).choices[0].message.content)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
