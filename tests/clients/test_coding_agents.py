"""Sessions of the shape that Claude Code and Codex have, request by request over plain HTTP, with calls and results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.served import served

MODEL = "quire-demo"
QUESTION = "What is the weather in Paris?"
RESULT = '{"temperature": 20, "sky": "sunny"}'
TOLD = "It is sunny and 20 degrees in Paris."
CITY: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
CACHED = {"type": "ephemeral"}


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    words = ("--threads", "1", "--kv-cache-memory-bytes", "64M", "--api-key", "secret")
    with served(tmp_path_factory.mktemp("agents"), *words, "--responses-store", "none") as server:
        headers = {"authorization": "Bearer secret", "user-agent": "agent/1.0"}
        with httpx.Client(base_url=server.url, headers=headers, timeout=60) as client:
            yield client


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The events of a stream; each name equals its type."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def message_of(events: list[dict[str, Any]]) -> dict[str, Any]:
    """A message put together as a client does, with the rules of the stream checked on the way."""
    assert events[0]["type"] == "message_start" and events[-1]["type"] == "message_stop"
    message: dict[str, Any] = events[0]["message"]
    opened: int | None = None
    pieces: dict[int, str] = {}
    for event in events[1:-1]:
        kind = event["type"]
        if kind == "content_block_start":
            assert opened is None and event["index"] == len(message["content"])
            opened = event["index"]
            message["content"].append(event["content_block"])
            pieces[opened] = ""
        elif kind == "content_block_delta":
            delta, block = event["delta"], message["content"][event["index"]]
            assert event["index"] == opened
            if delta["type"] == "input_json_delta":
                pieces[opened] += delta["partial_json"]
            else:
                field = delta["type"].removesuffix("_delta")
                block[field] = block.get(field, "") + delta[field]
        elif kind == "content_block_stop":
            assert event["index"] == opened
            if message["content"][opened]["type"] == "tool_use":
                message["content"][opened]["input"] = json.loads(pieces[opened] or "{}")
            opened = None
        elif kind == "message_delta":
            message |= event["delta"]
            message["usage"] |= event["usage"]
    assert opened is None
    return message


BETAS = "claude-code-20250219,interleaved-thinking-2025-05-14,prompt-caching-scope-2026-01-05"
CLAUDE = {"anthropic-version": "2023-06-01", "anthropic-beta": BETAS, "x-app": "cli"}


def claude(**more: Any) -> dict[str, Any]:
    """A request of a session; the demo model is told little, so that it knows what to do."""
    return {
        "model": MODEL,
        "system": [{"type": "text", "text": "You are helpful.", "cache_control": CACHED}],
        "tools": [
            {"name": "get_weather", "description": "Get the weather", "input_schema": CITY},
        ],
        "metadata": {"user_id": "user_1_account__session_2"},
        "max_tokens": 4000,
        "temperature": 0,
        "stream": True,
        **more,
    }


def test_a_session_of_claude_code(http: httpx.Client) -> None:
    url = "/v1/messages?beta=true"
    probe = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "quota"}]}
    answer = http.post(url, json=probe, headers=CLAUDE).json()
    assert answer["stop_reason"] == "max_tokens" and answer["usage"]["output_tokens"] == 1
    listed = http.get("/v1/models", params={"limit": 1000}, headers=CLAUDE).json()
    assert listed["data"][0]["display_name"] == MODEL and listed["has_more"] is False

    asked = {"type": "text", "text": QUESTION}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": [asked | {"cache_control": CACHED}]}
    ]
    session = claude(messages=messages)
    counted = {name: session[name] for name in ("model", "system", "tools", "messages")}
    tokens = http.post("/v1/messages/count_tokens?beta=true", json=counted, headers=CLAUDE).json()
    first = message_of(events_of(http.post(url, json=session, headers=CLAUDE)))
    assert (first["stop_reason"], first["model"]) == ("tool_use", MODEL)
    used = first["usage"]
    assert tokens["input_tokens"] == used["input_tokens"] + used["cache_read_input_tokens"]
    call = first["content"][-1]
    assert (call["type"], call["name"], call["input"]) == (
        "tool_use", "get_weather", {"city": "Paris"},
    )  # fmt: skip

    result = {
        "type": "tool_result",
        "tool_use_id": call["id"],
        "content": [{"type": "text", "text": RESULT}],
        "cache_control": CACHED,
    }
    messages = [
        {"role": "user", "content": [asked]},
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    second = message_of(events_of(http.post(url, json=claude(messages=messages), headers=CLAUDE)))
    assert (second["content"][-1]["text"], second["stop_reason"]) == (TOLD, "end_turn")
    assert second["usage"]["cache_read_input_tokens"] >= 16 * (tokens["input_tokens"] // 16) - 16


def test_a_title_in_a_form(http: httpx.Client) -> None:
    """Small requests beside a session: an answer that a schema holds, without tools."""
    schema = {
        "type": "object",
        "properties": {"isNewTopic": {"type": "boolean"}, "title": {"enum": ["Weather", None]}},
        "required": ["isNewTopic", "title"],
        "additionalProperties": False,
    }
    body = claude(
        messages=[{"role": "user", "content": QUESTION}],
        output_config={"format": {"type": "json_schema", "schema": schema}},
        tools=[],
    )
    found = message_of(events_of(http.post("/v1/messages?beta=true", json=body, headers=CLAUDE)))
    title = json.loads(found["content"][-1]["text"])
    assert isinstance(title["isNewTopic"], bool) and title["title"] in ("Weather", None)


CODEX = {"originator": "codex_cli_rs", "session_id": "0199", "accept": "text/event-stream"}


def codex(items: list[dict[str, Any]]) -> dict[str, Any]:
    """A request of a session: nothing is kept, everything is sent again."""
    return {
        "model": MODEL,
        "instructions": "You are helpful.",
        "input": items,
        "tools": [
            {
                "type": "function",
                "name": "get_weather",
                "description": "Get the weather",
                "strict": False,
                "parameters": CITY,
            },
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": None,
        "store": False,
        "stream": True,
        "include": [],
        "prompt_cache_key": "0199",
        "temperature": 0,
    }


def completed(events: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The items as they were ended one by one, without their ids, and the usage."""
    kinds = [event["type"] for event in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    items = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert kinds.count("response.output_item.added") == len(items)
    final = events[-1]["response"]
    assert final["output"] == items and final["status"] == "completed"
    usage = final["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert {"cached_tokens"} <= usage["input_tokens_details"].keys()
    assert {"reasoning_tokens"} <= usage["output_tokens_details"].keys()
    return [{k: v for k, v in one.items() if k != "id"} for one in items], usage


def test_a_session_of_codex(http: httpx.Client) -> None:
    assert http.get("/v1/models", params={"client_version": "0.90.0"}).status_code == 200
    user = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": QUESTION}],
    }
    first, _ = completed(events_of(http.post("/v1/responses", json=codex([user]), headers=CODEX)))
    call = first[-1]
    assert (call["type"], call["name"]) == ("function_call", "get_weather")
    assert json.loads(call["arguments"]) == {"city": "Paris"}
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": RESULT}
    items = [user, *first, output]
    second, usage = completed(
        events_of(http.post("/v1/responses", json=codex(items), headers=CODEX))
    )
    assert second[-1]["content"][0]["text"] == TOLD
    assert usage["input_tokens_details"]["cached_tokens"] > 0
    again = {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "What is the weather in Rome?"}],
    }
    third, _ = completed(
        events_of(http.post("/v1/responses", json=codex([*items, *second, again]), headers=CODEX))
    )
    assert third[-1]["type"] in ("function_call", "message")


def test_a_session_that_is_too_long_says_so(http: httpx.Client) -> None:
    """Agents shorten their history when they are told in their own form that it does not fit."""
    long = "word " * 20_000
    body = claude(messages=[{"role": "user", "content": long}])
    answer = http.post("/v1/messages?beta=true", json=body, headers=CLAUDE)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["type"] == "invalid_request_error"
    assert error["message"].startswith("prompt is too long: ") and "8192" in error["message"]
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": long}]}
    answer = http.post("/v1/responses", json=codex([item]), headers=CODEX)
    assert answer.status_code == 400
    assert "maximum context length is 8192 tokens" in answer.json()["error"]["message"]
    assert http.get("/health").status_code == 200
