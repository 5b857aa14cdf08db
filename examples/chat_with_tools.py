"""A tool is called and its result told: `python examples/chat_with_tools.py [model] [parser of its calls]`."""

from __future__ import annotations

import json
import sys
from typing import Any

from quire import LLM, SamplingParams
from quire.frontend.parsers.reader import make_reader
from quire.protocol.message import ReadOptions

TOOLS: list[dict[str, Any]] = [
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


def get_weather(city: str) -> dict[str, Any]:
    """What a real program would look up."""
    return {"temperature": 21 if city else 0, "sky": "sunny"}


def main(model: str, parser: str) -> None:
    """Prints the call, and what the model makes of its result."""
    params = SamplingParams(temperature=0.0, max_tokens=64)
    messages: list[dict[str, Any]] = [{"role": "user", "content": "What is the weather in Paris?"}]
    with LLM(model, max_model_len=1024) as llm:
        output = llm.chat(messages, params, tools=TOOLS, use_tqdm=False)[0].outputs[0]
        reader = make_reader(
            None, parser, ReadOptions(tools=TOOLS, tool_choice="auto"), llm.get_tokenizer()
        )
        calls = reader.feed(output.text, output.token_ids).calls + reader.finish().calls
        call = {"name": calls[0].name, "arguments": "".join(one.arguments for one in calls)}
        print(call["name"], call["arguments"])
        result = get_weather(**json.loads(call["arguments"]))
        asked = [{"id": "call_1", "type": "function", "function": call}]
        messages += [
            {"role": "assistant", "content": None, "tool_calls": asked},
            {"role": "tool", "tool_call_id": "call_1", "content": json.dumps(result)},
        ]
        print(llm.chat(messages, params, tools=TOOLS, use_tqdm=False)[0].outputs[0].text)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[2] if len(sys.argv) > 2 else "hermes")
