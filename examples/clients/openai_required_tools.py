"""A call that must be made: `python examples/clients/openai_required_tools.py [base URL]`.

With `required`, or the name of a tool, the output is held to the tools' schemas while it is made. So any
model will do, and the server needs no flag for it.
"""

from __future__ import annotations

import sys
from typing import Literal

from openai import OpenAI, pydantic_function_tool
from pydantic import BaseModel, Field


class GetWeather(BaseModel):
    """Get the weather"""

    city: str = Field(max_length=40)
    unit: Literal["celsius", "fahrenheit"]


def main(base_url: str) -> None:
    """Prints the call, read into a class: put together by the client from a stream, and named."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    with client.chat.completions.stream(
        model=model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[pydantic_function_tool(GetWeather)],
        tool_choice="required",
        parallel_tool_calls=False,
        temperature=0,
    ) as stream:
        for event in stream:
            if event.type == "tool_calls.function.arguments.done":
                print(event.name, repr(event.parsed_arguments))
    named = client.chat.completions.parse(
        model=model,
        messages=[{"role": "user", "content": "Hello!"}],
        tools=[pydantic_function_tool(GetWeather)],
        tool_choice={"type": "function", "function": {"name": "GetWeather"}},
        temperature=0,
    )
    (call,) = named.choices[0].message.tool_calls or ()
    print(type(call.function.parsed_arguments).__name__)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
