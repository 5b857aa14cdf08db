"""A tool, an agent and pieces with LlamaIndex: `python examples/clients/llama_index_tools.py [base URL]`.

Needs `pip install llama-index-llms-openai-like`.
"""

from __future__ import annotations

import asyncio
import sys

from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike


def weather(city: str) -> str:
    """Get the weather"""
    return '{"temperature": 21, "sky": "sunny"}'


async def ask_agent(model: OpenAILike, tool: FunctionTool, question: str) -> str:
    """What an agent says that calls the tool by itself."""
    return str(await FunctionAgent(tools=[tool], llm=model).run(question))


def main(base_url: str) -> None:
    """Prints a call with what is said of its result, what an agent says, and an answer in pieces."""
    model = OpenAILike(
        model="quire-demo",
        api_base=base_url,
        api_key="none",
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=8192,
        temperature=0,
    )
    tool = FunctionTool.from_defaults(weather, description="Get the weather")
    messages = [ChatMessage(role="user", content="What is the weather in Paris?")]
    asked = model.chat_with_tools([tool], chat_history=messages)
    messages.append(asked.message)
    for call in model.get_tool_calls_from_response(asked):
        print(call.tool_name, call.tool_kwargs)
        result = tool.call(**call.tool_kwargs)
        messages.append(
            ChatMessage(
                role="tool",
                content=result.content,
                additional_kwargs={"tool_call_id": call.tool_id},
            )
        )
    print(model.chat_with_tools([tool], chat_history=messages).message.content)
    print(asyncio.run(ask_agent(model, tool, "What is the weather in Rome?")))
    question = ChatMessage(role="user", content="What is the capital of Italy?")
    for piece in model.stream_chat([question]):
        print(piece.delta, end="", flush=True)
    print()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
