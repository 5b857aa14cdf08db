"""Tools of a model that writes calls as a list of JSON, as xLAM does: `python … openai_xlam_tools.py [base URL]`.

Start `quire serve MODEL --enable-auto-tool-choice --tool-call-parser xlam`. Whichever parser is named, the
program sees the same fields, so this one is like `openai_tools.py`; it shows both forms side by side.
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
            "name": "set_timer",
            "description": "Set a timer",
            "parameters": {
                "type": "object",
                "properties": {"minutes": {"type": "integer", "minimum": 1, "maximum": 60}},
                "required": ["minutes"],
                "additionalProperties": False,
            },
        },
    }
]


def main(base_url: str) -> None:
    """Prints one call, from a whole answer and from a stream."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    asked: Any = {
        "model": model,
        "messages": [{"role": "user", "content": "Set a timer for 10 minutes."}],
        "tools": TOOLS,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "temperature": 0,
    }
    whole = client.chat.completions.create(**asked).choices[0].message.tool_calls or ()
    for call in whole:
        print(call.function.name, json.loads(call.function.arguments))
    name = arguments = ""
    for piece in client.chat.completions.create(**asked, stream=True):
        for change in piece.choices[0].delta.tool_calls or ():
            name += change.function.name or ""
            arguments += change.function.arguments or ""
    print(name, json.loads(arguments))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
