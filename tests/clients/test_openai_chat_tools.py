"""The official `openai` client calls tools, reads reasoning and parses, with the demo model behind `quire serve`."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

MODEL = "quire-demo"
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {
    "type": "function",
    "function": {
        "name": "get_time",
        "description": "Get the time",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
ASKED: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
THINKS = {"extra_body": {"chat_template_kwargs": {"enable_thinking": True}}}
SUM: Any = [{"role": "user", "content": "What is 3 plus 4?"}]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The base URL of a server of this file's own."""
    command = [sys.executable, "-m", "quire", "serve", "--port", "0", "--threads", "1"]
    command += ["--kv-cache-memory-bytes", "64M", "--uvicorn-log-level", "warning"]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    assert process.stderr is not None
    lines: list[str] = []
    found = None
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"http://127\.0\.0\.1:\d+", line):
            break
    assert found, "".join(lines)
    rest = process.stderr
    threading.Thread(target=lambda: lines.extend(rest), daemon=True).start()
    deadline = time.monotonic() + 60
    while httpx.get(f"{found[0]}/ready").status_code != 200:
        assert process.poll() is None and time.monotonic() < deadline, "".join(lines)
        time.sleep(0.1)
    yield found[0]
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0, "".join(lines)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as made:
        yield made


def create(client: openai.OpenAI, **body: Any) -> Any:
    given = {"model": MODEL, "messages": ASKED, "temperature": 0, "max_tokens": 80, **body}
    return client.chat.completions.create(**given)


def streamed(client: openai.OpenAI, **body: Any) -> dict[str, Any]:
    """A streamed answer put together, with the order of its chunks checked on the way."""
    texts = {"content": "", "reasoning": ""}
    calls: list[dict[str, Any]] = []
    reason = usage = None
    chunks = list(create(client, **body, stream=True, stream_options={"include_usage": True}))
    first = chunks[0].choices[0]
    assert first.delta.role == "assistant" and first.delta.content == ""
    assert chunks[-1].choices == [] and chunks[-2].choices[0].finish_reason is not None
    for chunk in chunks[:-1]:
        choice = chunk.choices[0]
        assert reason is None, "nothing follows the reason"
        reason = choice.finish_reason
        for name in texts:
            texts[name] += getattr(choice.delta, name, None) or ""
        for call in choice.delta.tool_calls or []:
            assert call.index <= len(calls), "calls come in their order"
            if call.index == len(calls):
                assert call.id and call.function.name and call.type == "function"
                calls.append({"id": call.id, "name": call.function.name, "arguments": ""})
            else:
                assert call.id is None and call.function.name is None
            calls[call.index]["arguments"] += call.function.arguments or ""
    usage = chunks[-1].usage
    return {**texts, "calls": calls, "reason": reason, "usage": usage}


def assert_same(whole: Any, stream: dict[str, Any]) -> None:
    message = whole.choices[0].message
    assert (message.content or "") == stream["content"]
    assert (getattr(message, "reasoning", None) or "") == stream["reasoning"]
    assert [(one.function.name, one.function.arguments) for one in message.tool_calls or []] == [
        (one["name"], one["arguments"]) for one in stream["calls"]
    ]
    assert whole.choices[0].finish_reason == stream["reason"]
    assert whole.usage == stream["usage"]


def test_a_tool_is_called_where_the_model_wants_it(client: openai.OpenAI) -> None:
    answer = create(client, tools=[WEATHER])
    message = answer.choices[0].message
    (call,) = message.tool_calls
    assert call.id and call.type == "function" and call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert message.content is None and answer.choices[0].finish_reason == "tool_calls"
    assert_same(answer, streamed(client, tools=[WEATHER]))


def test_the_whole_round(client: openai.OpenAI) -> None:
    messages = list(ASKED)
    first = create(client, tools=[WEATHER], messages=messages).choices[0].message
    messages.append(first.to_dict())
    result = json.dumps({"temperature": 21, "sky": "sunny"})
    messages.append({"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": result})
    last = create(client, tools=[WEATHER], messages=messages).choices[0]
    assert last.finish_reason == "stop" and last.message.tool_calls is None
    assert "21" in last.message.content and "sunny" in last.message.content


def test_the_whole_round_in_the_older_form(client: openai.OpenAI) -> None:
    """`functions` say what `tools` say, and the answer has `function_call`; the prompts are the same."""
    functions = [WEATHER["function"]]
    messages = list(ASKED)
    tools = create(client, tools=[WEATHER])
    answer = create(client, functions=functions, messages=messages)
    message = answer.choices[0].message
    assert message.tool_calls is None and answer.choices[0].finish_reason == "function_call"
    assert message.function_call.name == "get_weather"
    assert json.loads(message.function_call.arguments) == {"city": "Paris"}
    assert answer.usage == tools.usage
    name = arguments = ""
    for chunk in create(client, functions=functions, messages=messages, stream=True):
        delta = chunk.choices[0].delta
        assert delta.tool_calls is None
        if delta.function_call is not None:
            assert not (name and delta.function_call.name), "the name comes once"
            name += delta.function_call.name or ""
            arguments += delta.function_call.arguments or ""
    assert chunk.choices[0].finish_reason == "function_call"
    assert (name, arguments) == (message.function_call.name, message.function_call.arguments)
    messages.append(message.to_dict())
    result = json.dumps({"temperature": 21, "sky": "sunny"})
    messages.append({"role": "function", "name": "get_weather", "content": result})
    last = create(client, functions=functions, messages=messages).choices[0]
    assert last.finish_reason == "stop" and last.message.function_call is None
    assert "21" in last.message.content and "sunny" in last.message.content


def test_a_function_that_is_named_and_none(client: openai.OpenAI) -> None:
    functions = [WEATHER["function"], CLOCK["function"]]
    named = create(client, functions=functions, function_call={"name": "get_time"}, messages=SUM)
    assert named.choices[0].message.function_call.name == "get_time"
    assert "city" in json.loads(named.choices[0].message.function_call.arguments)
    assert named.choices[0].finish_reason == "stop"
    none = create(client, functions=functions, function_call="none")
    assert none.choices[0].message.function_call is None and none.choices[0].message.content


@pytest.mark.parametrize("how", [{}, {"parallel_tool_calls": False}, {"temperature": 1, "seed": 3}])
def test_a_required_call_is_made_whatever_the_question(
    client: openai.OpenAI, how: dict[str, Any]
) -> None:
    body = {
        "messages": [{"role": "user", "content": "Hello!"}], "tools": [WEATHER, CLOCK],
        "tool_choice": "required", "seed": 1, "max_tokens": 200, **how,
    }  # fmt: skip
    answer = create(client, **body)
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert len(calls) >= 1 and (len(calls) == 1 or "parallel_tool_calls" not in how)
    for call in calls:
        assert call.function.name in ("get_weather", "get_time")
        assert isinstance(json.loads(call.function.arguments)["city"], str)
    assert answer.choices[0].message.content is None
    assert_same(answer, streamed(client, **body))


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_only_allowed_tools_are_called(client: openai.OpenAI, mode: str) -> None:
    """In both APIs, as if the others had not been sent."""
    both = [WEATHER, CLOCK]
    listed = [{"type": "function", "function": {"name": "get_time"}}]
    choice: Any = {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": listed}}
    found = create(client, tools=both, tool_choice=choice)
    alone = create(client, tools=[CLOCK], tool_choice=mode)
    assert found.usage == alone.usage
    assert found.choices[0].message.content == alone.choices[0].message.content
    names = [one.function.name for one in found.choices[0].message.tool_calls or []]
    assert set(names) <= {"get_time"} and (names or mode == "auto")
    tools: Any = [{"type": "function", **one["function"], "strict": False} for one in both]
    answer = client.responses.create(
        model=MODEL,
        input=ASKED,
        tools=tools,
        temperature=0,
        tool_choice={
            "type": "allowed_tools",
            "mode": mode,  # type: ignore[typeddict-item]
            "tools": [{"type": "function", "name": "get_time"}],
        },
    )
    called = [one.name for one in answer.output if one.type == "function_call"]
    assert set(called) <= {"get_time"} and (called or mode == "auto")


def test_a_named_call_is_made_and_ends_with_stop(client: openai.OpenAI) -> None:
    named = {"type": "function", "function": {"name": "get_time"}}
    body = {"tools": [WEATHER, CLOCK], "tool_choice": named, "seed": 1}
    answer = create(client, **body)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_time" and "city" in json.loads(call.function.arguments)
    assert answer.choices[0].finish_reason == "stop" and answer.choices[0].message.content is None
    assert_same(answer, streamed(client, **body))


def test_reasoning_comes_before_a_required_call(client: openai.OpenAI) -> None:
    body = {
        "messages": SUM, "tools": [WEATHER, CLOCK], "tool_choice": "required", **THINKS,
        "max_tokens": 200,
    }  # fmt: skip
    answer = create(client, **body)
    message = answer.choices[0].message
    assert message.reasoning and message.tool_calls and not (message.content or "").strip()
    assert answer.choices[0].finish_reason == "tool_calls"
    for call in message.tool_calls:
        assert isinstance(json.loads(call.function.arguments)["city"], str)
    assert_same(answer, streamed(client, **body))


def test_a_strict_tool_is_held_to_its_schema_where_it_is_called(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Lima"]}, "days": {"type": "integer"}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    tool = {
        "type": "function",
        "function": {"name": "get_weather", "description": "Get the weather", "parameters": schema},
    }
    loose = create(client, tools=[tool]).choices[0].message.tool_calls[0].function.arguments
    assert json.loads(loose) == {"city": "Paris"}
    tool["function"]["strict"] = True
    answer = create(client, tools=[tool], n=4, temperature=1, seed=1)
    called = [one for one in answer.choices if one.finish_reason == "tool_calls"]
    assert called
    for choice in called:
        for call in choice.message.tool_calls:
            arguments = json.loads(call.function.arguments)
            assert set(arguments) == {"city", "days"} and arguments["city"] in ("Oslo", "Lima")
    text = create(client, tools=[tool], messages=[{"role": "user", "content": "Hello!"}])
    assert text.choices[0].message.content and text.choices[0].message.tool_calls is None


def test_a_response_format_leaves_room_for_calls(client: openai.OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"answer": {"enum": ["yes", "no"]}},
        "required": ["answer"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    called = create(client, tools=[WEATHER], response_format=form)
    assert called.choices[0].message.tool_calls[0].function.name == "get_weather"
    said = create(
        client, tools=[WEATHER], response_format=form,
        messages=[{"role": "user", "content": "Hello!"}],
    )  # fmt: skip
    message = said.choices[0].message
    assert message.tool_calls or json.loads(message.content)["answer"] in ("yes", "no")


def test_none_is_text(client: openai.OpenAI) -> None:
    answer = create(client, tools=[WEATHER], tool_choice="none")
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content and answer.choices[0].finish_reason == "stop"


def test_a_cut_call_is_said_to_be_cut(client: openai.OpenAI) -> None:
    whole = create(client, tools=[WEATHER])
    for tokens in range(1, whole.usage.completion_tokens):
        answer = create(client, tools=[WEATHER], max_tokens=tokens)
        assert answer.choices[0].finish_reason == "length"
        assert_same(answer, streamed(client, tools=[WEATHER], max_tokens=tokens))


@pytest.mark.parametrize("choices", [1, 3])
def test_choices_are_read_apart(client: openai.OpenAI, choices: int) -> None:
    answer = create(client, tools=[WEATHER], n=choices, temperature=0.5, seed=1)
    ids = [one.message.tool_calls[0].id for one in answer.choices if one.message.tool_calls]
    assert len(ids) == len(set(ids)) >= 1


def test_logprobs_are_those_of_all_tokens(client: openai.OpenAI) -> None:
    for body in ({"tools": [WEATHER]}, {"extra_body": {"reasoning_effort": "high"}}):
        answer = create(client, **body, logprobs=True, top_logprobs=2)
        logged = answer.choices[0].logprobs.content
        assert len(logged) == answer.usage.completion_tokens
        chunks = create(client, **body, logprobs=True, top_logprobs=2, stream=True)
        pieces = [one.choices[0].logprobs for one in chunks if one.choices[0].logprobs]
        assert [one for piece in pieces for one in piece.content] == logged


def test_the_streaming_helper_puts_calls_together(client: openai.OpenAI) -> None:
    class GetWeather(BaseModel):
        city: str

    tool = openai.pydantic_function_tool(
        GetWeather, name="get_weather", description="Get the weather"
    )
    kinds = []
    with client.chat.completions.stream(
        model=MODEL,
        messages=ASKED,
        temperature=0,
        max_tokens=200,
        tools=[tool],
        tool_choice="required",
    ) as stream:
        for event in stream:
            kinds.append(event.type)
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert "tool_calls.function.arguments.done" in kinds
    (call, *_) = final.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, GetWeather)


def test_parse_gives_a_model(client: openai.OpenAI) -> None:
    class Answer(BaseModel):
        city: str
        size: Literal["small", "large"]

    answer = client.chat.completions.parse(
        model=MODEL, messages=ASKED, temperature=0, max_tokens=400, response_format=Answer
    )
    assert isinstance(answer.choices[0].message.parsed, Answer)
    with client.chat.completions.stream(
        model=MODEL, messages=ASKED, temperature=0, max_tokens=400, response_format=Answer
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == answer.choices[0].message.parsed


def test_reasoning_is_a_field(client: openai.OpenAI) -> None:
    answer = create(client, messages=SUM, **THINKS)
    message = answer.choices[0].message
    assert "7" in message.reasoning and "7" in message.content
    assert "</think>" not in message.content
    details = answer.usage.completion_tokens_details
    assert 0 < details.reasoning_tokens < answer.usage.completion_tokens
    assert_same(answer, streamed(client, messages=SUM, **THINKS))
    effort = create(client, messages=SUM, reasoning_effort="high")
    assert effort.choices[0].message.reasoning == message.reasoning
    off = create(client, messages=SUM, reasoning_effort="none")
    assert off.choices[0].message.reasoning is None


def test_hidden_reasoning_leaves_no_trace(client: openai.OpenAI) -> None:
    body = {**THINKS["extra_body"], "include_reasoning": False, "return_token_ids": True}
    shown = create(client, messages=SUM, **THINKS).choices[0].message
    answer = create(client, messages=SUM, extra_body=body, logprobs=True)
    choice = answer.choices[0]
    assert choice.message.reasoning is None and choice.message.content == shown.content
    assert choice.logprobs is None and not hasattr(choice, "token_ids")
    chunks = list(create(client, messages=SUM, extra_body=body, logprobs=True, stream=True))
    for chunk in chunks:
        assert not getattr(chunk.choices[0].delta, "reasoning", None)
        assert chunk.choices[0].logprobs is None and not hasattr(chunk.choices[0], "token_ids")
    assert "".join(one.choices[0].delta.content or "" for one in chunks) == shown.content


def test_reasoning_of_earlier_answers_is_taken_under_both_names(client: openai.OpenAI) -> None:
    for name in ("reasoning", "reasoning_content"):
        messages = [*SUM, {"role": "assistant", "content": "7", name: "3 + 4"}, *SUM]
        assert create(client, messages=messages).choices[0].message.content


def test_several_conversations_in_one_request(client: openai.OpenAI, url: str) -> None:
    body = {"messages": [ASKED, SUM], "temperature": 0, "max_tokens": 30}
    found = httpx.post(f"{url}/v1/chat/completions/batch", json=body).json()
    alone = [create(client, messages=one, max_tokens=30) for one in (ASKED, SUM)]
    assert [one["index"] for one in found["choices"]] == [0, 1]
    assert [one["message"]["content"] for one in found["choices"]] == [
        one.choices[0].message.content for one in alone
    ]
    assert found["usage"]["total_tokens"] == sum(one.usage.total_tokens for one in alone)


def test_faults_are_the_clients_errors(client: openai.OpenAI) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": []}, "tools"),
    ]
    for body, param in wrong:
        with pytest.raises(openai.BadRequestError) as caught:
            create(client, **body)
        assert caught.value.param == param
