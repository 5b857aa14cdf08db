"""Tools, reasoning and what belongs to them through `LLM.chat` with the demo model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from quire import LLM, SamplingParams
from quire.frontend.parsers.reader import make_reader
from quire.protocol.errors import InvalidRequestError
from quire.protocol.message import ReadOptions

WEATHER: dict[str, Any] = {
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
ASKED = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY = SamplingParams(temperature=0, max_tokens=64)


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(threads=1, kv_cache_memory_bytes=64 << 20) as made:
        yield made


def test_tools_reach_the_template_and_the_text_can_be_read(llm: LLM) -> None:
    (bare,) = llm.chat(ASKED, GREEDY, use_tqdm=False)
    (with_tool,) = llm.chat(ASKED, GREEDY, tools=[WEATHER], use_tqdm=False)
    assert "get_weather" in str(with_tool.prompt) and "get_weather" not in str(bare.prompt)
    reader = make_reader(
        None, "hermes", ReadOptions(tools=[WEATHER], tool_choice="auto"), llm.get_tokenizer()
    )
    output = with_tool.outputs[0]
    calls = reader.feed(output.text, output.token_ids).calls + reader.finish().calls
    assert calls[0].name == "get_weather"
    assert "".join(one.arguments for one in calls) == '{"city": "Paris"}'


def test_a_tools_answer_becomes_words(llm: LLM) -> None:
    call = {
        "id": "1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
    }
    messages = [
        *ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": '{"temperature": 21, "sky": "sunny"}'},
    ]
    (answer,) = llm.chat(messages, GREEDY, tools=[WEATHER], use_tqdm=False)
    assert '"arguments": {"city": "Paris"}' in str(answer.prompt)
    assert "21" in answer.outputs[0].text and "sunny" in answer.outputs[0].text


@pytest.mark.parametrize("tools", ["f", 5, [5], {"type": "function"}])
def test_wrong_tools_are_named(llm: LLM, tools: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        llm.chat(ASKED, GREEDY, tools=tools, use_tqdm=False)
    assert caught.value.param == "tools"


def test_reasoning_effort_is_the_switch_of_the_template(llm: LLM) -> None:
    def prompt(**kwargs: Any) -> str:
        (found,) = llm.chat(
            ASKED, SamplingParams(max_tokens=1), chat_template_kwargs=kwargs, use_tqdm=False
        )
        return str(found.prompt)

    assert prompt(reasoning_effort="high").endswith("<think>\n")
    assert prompt(enable_thinking=True) == prompt(reasoning_effort="low")
    assert prompt(reasoning_effort="none") == prompt() == prompt(enable_thinking=False)
    assert prompt(reasoning_effort="high", enable_thinking=False) == prompt()
