"""A tour with the official `anthropic` client: messages, streams, tools, thinking, helpers, errors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Literal

import anthropic
import pytest
from anthropic import beta_tool
from pydantic import BaseModel

from tests.e2e.served import served

MODEL = "quire-demo"
KEY = "secret"
FRANCE: Any = [{"role": "user", "content": "What is the capital of France?"}]
WEATHER: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
TOOL: Any = {
    "name": "get_weather",
    "description": "Get the weather",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
GREEDY: Any = {"temperature": 0}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("anthropic")
    words = ("--threads", "1", "--kv-cache-memory-bytes", "64M", "--api-key", KEY)
    with served(folder, *words, "--responses-store", "memory") as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0) as made:
        yield made


def create(client: anthropic.Anthropic, **body: Any) -> Any:
    given = {"model": MODEL, "max_tokens": 64, "messages": FRANCE, "extra_body": GREEDY, **body}
    return client.messages.create(**given)


def test_a_message(client: anthropic.Anthropic) -> None:
    found = create(client, system="Be terse.", metadata={"user_id": "u"})
    assert found.content[0].text == "The capital of France is Paris."
    assert (found.type, found.role, found.stop_reason) == ("message", "assistant", "end_turn")
    counted = client.messages.count_tokens(model=MODEL, messages=FRANCE, system="Be terse.")
    usage = found.usage
    assert counted.input_tokens == usage.input_tokens + usage.cache_read_input_tokens
    assert usage.output_tokens > 3
    assert [one.id for one in client.models.list().data] == [MODEL]


def test_limits_and_stops(client: anthropic.Anthropic) -> None:
    assert create(client, max_tokens=2).stop_reason == "max_tokens"
    found = create(client, stop_sequences=[" is"])
    assert (found.stop_reason, found.stop_sequence) == ("stop_sequence", " is")
    assert found.content[0].text == "The capital of France"
    begun = [*FRANCE, {"role": "assistant", "content": "The capital of"}]
    assert create(client, messages=begun).content[0].text.strip().startswith("France")


def test_streams(client: anthropic.Anthropic) -> None:
    whole = create(client)
    kinds = [event.type for event in create(client, stream=True)]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    body: Any = {"model": MODEL, "max_tokens": 64, "messages": FRANCE, "extra_body": GREEDY}
    with client.messages.stream(**body) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == whole.content[0].text
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert final.stop_reason == "end_turn"


def test_tools_round_trip(client: anthropic.Anthropic) -> None:
    asked = create(client, messages=WEATHER, tools=[TOOL])
    call = asked.content[-1]
    assert (asked.stop_reason, call.type, call.input) == ("tool_use", "tool_use", {"city": "Paris"})
    result = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": '{"temperature": 20, "sky": "sunny"}',
    }
    history = [*WEATHER, {"role": "assistant", "content": asked.content}]
    told = create(client, messages=[*history, {"role": "user", "content": [result]}], tools=[TOOL])
    assert told.content[0].text == "It is sunny and 20 degrees in Paris."
    body: Any = {"model": MODEL, "max_tokens": 64, "messages": WEATHER, "extra_body": GREEDY}
    with client.messages.stream(**body, tools=[TOOL]) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert final.content[-1].input == {"city": "Paris"} and "".join(pieces)


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_demanded_tools(client: anthropic.Anthropic, choice: Any) -> None:
    found = create(client, messages=FRANCE, tools=[TOOL], tool_choice=choice)
    assert found.stop_reason == "tool_use"
    call = next(block for block in found.content if block.type == "tool_use")
    assert call.name == "get_weather" and isinstance(call.input["city"], str)


def test_the_tool_runner(client: anthropic.Anthropic) -> None:
    asked: list[str] = []

    @beta_tool
    def get_weather(city: str) -> str:
        """Get the weather"""
        asked.append(city)
        return '{"temperature": 20, "sky": "sunny"}'

    runner = client.beta.messages.tool_runner(
        model=MODEL,
        max_tokens=64,
        messages=WEATHER,
        tools=[get_weather],
        betas=["fine-grained-tool-streaming-2025-05-14"],
        extra_body=GREEDY,
        max_iterations=4,
    )
    last = runner.until_done()
    assert asked == ["Paris"]
    assert last.content[0].text == "It is sunny and 20 degrees in Paris."
    assert last.stop_reason == "end_turn"


def test_answers_in_a_form(client: anthropic.Anthropic) -> None:
    class Answer(BaseModel):
        city: Literal["Paris", "Rome"]

    body: Any = {"model": MODEL, "max_tokens": 200, "messages": FRANCE, "extra_body": GREEDY}
    parsed = client.messages.parse(**body, output_format=Answer)
    assert isinstance(parsed.parsed_output, Answer)
    beta = client.beta.messages.parse(**body, output_format=Answer)
    assert isinstance(beta.parsed_output, Answer)


def test_thinking_and_beta_flags_are_taken(client: anthropic.Anthropic) -> None:
    found = create(
        client,
        thinking={"type": "enabled", "budget_tokens": 1024},
        extra_headers={"anthropic-beta": "interleaved-thinking-2025-05-14"},
        max_tokens=2048,
    )
    assert found.content[-1].text


def test_errors_have_their_classes(client: anthropic.Anthropic, url: str) -> None:
    with pytest.raises(anthropic.NotFoundError, match="not_found_error"):
        create(client, model="other")
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        create(client, max_tokens=0)
    with pytest.raises(anthropic.BadRequestError, match="images"):
        image = {"type": "image", "source": {"type": "url", "url": "http://x/y.png"}}
        create(client, messages=[{"role": "user", "content": [image]}])
    with anthropic.Anthropic(base_url=url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
            create(stranger)
    with anthropic.Anthropic(base_url=url, auth_token=KEY, api_key=None, max_retries=0) as other:
        assert create(other).stop_reason == "end_turn"


def test_many_at_once(url: str) -> None:
    async def run() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=url, api_key=KEY, max_retries=0) as client:

            async def one() -> str:
                async with client.messages.stream(
                    model=MODEL, max_tokens=64, messages=FRANCE, extra_body=GREEDY
                ) as stream:
                    return await stream.get_final_text()

            return await asyncio.gather(*(one() for _ in range(8)))

    assert set(asyncio.run(run())) == {"The capital of France is Paris."}


def test_a_request_as_a_coding_agent_sends_it(client: anthropic.Anthropic) -> None:
    """The shape that Claude Code sends: system blocks, cache marks, many tools, reminders, betas."""
    cached: Any = {"type": "ephemeral"}
    system: Any = [
        {
            "type": "text",
            "text": "x-anthropic-billing-header: cc_version=2.0.1; cc_entrypoint=cli;",
        },
        {"type": "text", "text": "You are a coding agent.", "cache_control": cached},
        {"type": "text", "text": "Use the tools.", "cache_control": cached},
    ]
    tools: Any = [
        {
            "name": "Read",
            "description": "Reads a file",
            "input_schema": {
                "$schema": "https://json-schema.org/draft/2020-12/schema",
                "type": "object",
                "properties": {
                    "file_path": {"type": "string", "description": "the path"},
                    "limit": {"type": "number"},
                },
                "required": ["file_path"],
                "additionalProperties": False,
            },
        },
        TOOL,
    ]
    messages: Any = [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<system-reminder>\nToday.\n</system-reminder>"},
                {"type": "text", "text": "Read a.txt", "cache_control": cached},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "I read it.", "signature": "abc"},
                {
                    "type": "tool_use",
                    "id": "toolu_1",
                    "name": "Read",
                    "input": {"file_path": "a.txt"},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "toolu_1",
                    "content": "no such file",
                    "is_error": True,
                    "cache_control": cached,
                }
            ],
        },
    ]
    events = client.beta.messages.create(
        model=MODEL,
        max_tokens=32000,
        system=system,
        tools=tools,
        messages=messages,
        metadata={"user_id": "user_x_account_y_session_z"},
        thinking={"type": "adaptive"},
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        output_config={"effort": "medium"},
        betas=["claude-code-20250219", "interleaved-thinking-2025-05-14"],
        extra_body={"temperature": 1},
        stream=True,
    )
    kinds = [event.type for event in events]
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    count = client.beta.messages.count_tokens(
        model=MODEL, system=system, tools=tools, messages=messages
    )
    assert count.input_tokens > 50
