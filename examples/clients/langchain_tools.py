"""A tool, an agent, a form and pieces with LangChain: `python examples/clients/langchain_tools.py [base URL]`.

Needs `pip install langchain langchain-openai`.
"""

from __future__ import annotations

import sys
from typing import Any, Literal

from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel


class Answer(BaseModel):
    """What an answer must be."""

    capital: Literal["Paris", "Rome"]


@tool
def get_weather(city: str) -> str:
    """Get the weather"""
    return '{"temperature": 21, "sky": "sunny"}'


def main(base_url: str) -> None:
    """Prints a call with what is said of its result, what an agent says, an object, and an answer in pieces."""
    model = ChatOpenAI(model="quire-demo", base_url=base_url, api_key="none", temperature=0)
    with_tools = model.bind_tools([get_weather])
    messages: list[Any] = [HumanMessage("What is the weather in Paris?")]
    asked = with_tools.invoke(messages)
    messages.append(asked)
    for call in asked.tool_calls:
        print(call["name"], call["args"])
        messages.append(get_weather.invoke(call))
    print(with_tools.invoke(messages).content)
    agent = create_agent(model, [get_weather])
    state = agent.invoke({"messages": [HumanMessage("What is the weather in Rome?")]})
    print(state["messages"][-1].content)
    formed = model.with_structured_output(Answer)
    print(repr(formed.invoke("What is the capital of France?")))
    for piece in model.stream("What is the capital of Italy?"):
        print(piece.content, end="", flush=True)
    print()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
