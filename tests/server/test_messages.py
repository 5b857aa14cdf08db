"""What /v1/messages answers: blocks and events, what the model is shown, and errors in Anthropic's form."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.server.saying import MAX_LEN, MODEL, Saying, talk
from tests.server.test_blocks import replay_anthropic

USER = [{"role": "user", "content": "Hello"}]
TOOL = {
    "name": "get_weather",
    "description": "Get the weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
FORMAT = {"type": "json_schema", "schema": {"type": "object"}}


async def ask(server: Saying, path: str = "/v1/messages", **body: Any) -> Any:
    given = {"model": MODEL, "messages": USER, "max_tokens": 200, **body}
    return await server.http.post(path, json={k: v for k, v in given.items() if v != "-"})


async def stream(server: Saying, **body: Any) -> list[dict[str, Any]]:
    answer = await ask(server, stream=True, **body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = []
    for block in answer.text.strip().split("\n\n"):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == "event: " + events[-1]["type"]
    return events


def test_a_text() -> None:
    async def test(server: Saying) -> None:
        answer = (await ask(server, temperature=0.5, metadata={"user_id": "u"})).json()
        assert answer.pop("id").startswith("msg_")
        usage = answer.pop("usage")
        assert answer == {
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [{"type": "text", "text": "Hello."}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
        }
        assert usage["cache_read_input_tokens"] == 2 and usage["cache_creation_input_tokens"] == 0
        counted = (await ask(server, "/v1/messages/count_tokens", max_tokens="-")).json()
        assert counted["input_tokens"] == usage["input_tokens"] + 2
        assert server.client.params[-1].temperature == 0.5

    talk(test)


def test_a_stream_is_in_order_and_equal_to_the_whole() -> None:
    async def test(server: Saying) -> None:
        server.client.text = "<think>Let me see.</think>I look.\n" + CALL
        whole = (await ask(server, tools=[TOOL])).json()
        events = await stream(server, tools=[TOOL])
        kinds = [event["type"] for event in events]
        assert kinds[:3] == ["message_start", "ping", "content_block_start"]
        assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
        content = replay_anthropic(events)
        for block in [*content, *whole["content"]]:
            block.pop("id", None)
        assert content == whole["content"]
        assert [block["type"] for block in content] == ["thinking", "text", "tool_use"]
        assert content[0]["thinking"] == "Let me see." and content[0]["signature"]
        assert content[2]["input"] == {"city": "Paris"}
        start = events[0]["message"]
        assert start["content"] == [] and start["stop_reason"] is None
        assert start["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
        assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
        assert events[-2]["usage"] == whole["usage"] and whole["stop_reason"] == "tool_use"

    talk(test, reasoning="qwen3")


@pytest.mark.parametrize(
    ("body", "reason", "sequence"),
    [
        ({"max_tokens": 2}, "max_tokens", None),
        ({"stop_sequences": ["lo"]}, "stop_sequence", "lo"),
        ({}, "end_turn", None),
        ({"max_tokens": 100_000}, "end_turn", None),  # more than the context: cut to it
    ],
)
def test_why_it_ended(body: dict[str, Any], reason: str, sequence: str | None) -> None:
    async def test(server: Saying) -> None:
        answer = (await ask(server, **body)).json()
        assert (answer["stop_reason"], answer["stop_sequence"]) == (reason, sequence)

    talk(test)


def test_a_context_that_is_full_is_not_the_limit_of_the_request() -> None:
    async def test(server: Saying) -> None:
        server.client.text = "word " * MAX_LEN
        answer = (await ask(server, max_tokens=100_000)).json()
        assert answer["stop_reason"] == "model_context_window_exceeded"

    talk(test)


def test_what_the_model_is_shown() -> None:
    """A conversation as an agent sends it, in the template's words."""
    messages = [
        {
            "role": "user",
            "content": [{"type": "text", "text": "Look", "cache_control": {"type": "x"}}],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hmm", "signature": "s"},
                {"type": "redacted_thinking", "data": "xyz"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "sunny"}],
                },
                {"type": "text", "text": "Well?"},
                {"type": "text", "text": "Say."},
            ],
        },
    ]
    system = [
        {"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=00000;"},
        {"type": "text", "text": "You are terse."},
        {"type": "text", "text": "Be right."},
    ]

    async def test(server: Saying) -> None:
        answer = await ask(server, messages=messages, system=system, tools=[TOOL])
        assert answer.status_code == 200, answer.text
        shown = server.client.prompts[-1]
        places = [
            shown.index(part)
            for part in (
                "You are terse.\nBe right.",
                "Look",
                "I look.",
                '"Paris"',
                "sunny",
                "Well?",
            )
        ]
        assert places == sorted(places)
        assert "billing" not in shown and "xyz" not in shown and "get_weather" in shown

    talk(test)


def test_an_answer_that_was_begun_goes_on() -> None:
    async def test(server: Saying) -> None:
        begun = [*USER, {"role": "assistant", "content": "The answer is"}]
        await ask(server, messages=begun)
        assert server.client.prompts[-1].endswith("The answer is")
        await ask(server)
        assert not server.client.prompts[-1].endswith("Hello")

    talk(test)


def test_choices_of_tools() -> None:
    async def test(server: Saying) -> None:
        server.client.text = CALL
        for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
            answer = (await ask(server, tools=[TOOL], tool_choice=choice)).json()
            assert answer["content"][0]["input"] == {"city": "Paris"}
            assert answer["stop_reason"] == "tool_use"
            assert server.client.grammars[-1] is not None
        server.client.text = CALL + "\n" + CALL
        once = {"type": "auto", "disable_parallel_tool_use": True}
        assert len((await ask(server, tools=[TOOL])).json()["content"]) == 2
        assert len((await ask(server, tools=[TOOL], tool_choice=once)).json()["content"]) == 1
        answer = (await ask(server, tools=[TOOL], tool_choice={"type": "none"})).json()
        assert answer["content"] == [{"type": "text", "text": server.client.text}]

    talk(test)


def test_thinking_can_be_left_out() -> None:
    async def test(server: Saying) -> None:
        server.client.text = "<think>Hmm</think>Yes."
        for thinking in ({"type": "disabled"}, {"type": "adaptive", "display": "omitted"}):
            answer = (await ask(server, thinking=thinking)).json()
            assert [block["type"] for block in answer["content"]] == ["text"]
        answer = (await ask(server, thinking={"type": "enabled", "budget_tokens": 50})).json()
        assert [block["type"] for block in answer["content"]] == ["thinking", "text"]
        assert server.client.params[-1].thinking_token_budget == 50

    talk(test, reasoning="qwen3")


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_a_format_is_a_constraint(name: str) -> None:
    async def test(server: Saying) -> None:
        value = {"format": FORMAT} if name == "output_config" else FORMAT
        await ask(server, **{name: value})
        grammar = server.client.grammars[-1]
        assert grammar is not None and json.loads(grammar.text) == FORMAT["schema"]
        await ask(server)
        assert server.client.grammars[-1] is None

    talk(test)


WRONG: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "other"}, 404, "not_found_error", "other"),
    ({"model": "-"}, 400, "invalid_request_error", "model"),
    ({"max_tokens": "-"}, 400, "invalid_request_error", "max_tokens"),
    ({"max_tokens": 0}, 400, "invalid_request_error", "at least 1"),
    ({"messages": []}, 400, "invalid_request_error", "messages"),
    ({"messages": "Hi"}, 400, "invalid_request_error", "messages"),
    ({"messages": [{"role": "root", "content": "x"}]}, 400, "invalid_request_error", "role"),
    ({"messages": [{"role": "user"}]}, 400, "invalid_request_error", "messages[0].content"),
    ({"messages": [{"role": "user", "content": 5}]}, 400, "invalid_request_error", "number"),
    ({"messages": [{"role": "user", "content": []}]}, 400, "invalid_request_error", "empty"),
    (
        {"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]},
        400, "invalid_request_error", "images",
    ),
    (
        {"messages": [{"role": "user", "content": [{"type": "nonsense"}]}]},
        400, "invalid_request_error", "nonsense",
    ),
    ({"temperature": -1}, 400, "invalid_request_error", "temperature"),
    ({"tools": [{"name": "a b", "input_schema": {}}]}, 400, "invalid_request_error", "tools[0]"),
    ({"tools": [{"name": "x"}]}, 400, "invalid_request_error", "input_schema"),
    ({"tools": [{"type": "bash_20250124", "name": "bash"}]}, 400, "invalid_request_error", "bash"),
    ({"tool_choice": {"type": "tool"}}, 400, "invalid_request_error", "tool_choice"),
    ({"tool_choice": {"type": "any"}}, 400, "invalid_request_error", "no tools"),
    ({"tools": [TOOL], "tool_choice": {"type": "x"}}, 400, "invalid_request_error", "tool_choice"),
    (
        {"tools": [TOOL], "tool_choice": {"type": "tool", "name": "f"}},
        400, "invalid_request_error", "among",
    ),
    ({"thinking": {"type": "x"}}, 400, "invalid_request_error", "thinking"),
    ({"output_config": {"format": {"type": "x"}}}, 400, "invalid_request_error", "json_schema"),
    ({"stop_sequences": [""]}, 400, "invalid_request_error", "stop_sequences"),
    ({"mcp_servers": [{}]}, 400, "invalid_request_error", "tools"),
    (
        {"messages": [{"role": "user", "content": "word " * 3000}]},
        400, "invalid_request_error", str(MAX_LEN - 1),
    ),
]  # fmt: skip


def test_wrong_requests() -> None:
    async def test(server: Saying) -> None:
        for body, status, kind, says in WRONG:
            for more in ({}, {"stream": True}):
                answer = await ask(server, **body, **more)
                assert answer.status_code == status, answer.text
                found = answer.json()
                assert found["type"] == "error" and set(found) == {"type", "error"}
                assert found["error"]["type"] == kind and says in found["error"]["message"], body
        assert (await ask(server)).status_code == 200

    talk(test)


def test_errors_of_http_have_the_same_form() -> None:
    async def test(server: Saying) -> None:
        post = server.http.post
        answers = [
            (await post("/v1/messages", json={}), 401, "authentication_error"),
            (await post("/v1/messages/nope", json={}, headers=key), 404, "not_found_error"),
            (await server.http.get("/v1/messages", headers=key), 405, "invalid_request_error"),
            (
                await post("/v1/messages", content=b"{", headers={**key, **as_json}),
                400, "invalid_request_error",
            ),
            (
                await post("/v1/messages", content=b" " * 3000, headers={**key, **as_json}),
                413, "request_too_large",
            ),
            (
                await post("/v1/messages", content=b"x=1", headers={**key, "content-type": "text/plain"}),
                415, "invalid_request_error",
            ),
        ]  # fmt: skip
        for answer, status, kind in answers:
            assert answer.status_code == status
            assert answer.json()["error"]["type"] == kind
            assert answer.json()["type"] == "error"
        for header in ({"x-api-key": "k2"}, {"authorization": "Bearer k1", "x-api-key": "no"}):
            answer = await server.http.post(
                "/v1/messages",
                json={"model": MODEL, "max_tokens": 1, "messages": USER},
                headers=header,
            )
            assert answer.status_code == 200
        server.state.draining = True
        answer = await post("/v1/messages", json={}, headers=key)
        assert answer.status_code == 503
        assert answer.json()["error"]["type"] == "overloaded_error"
        server.state.draining = False

    key, as_json = {"x-api-key": "k1"}, {"content-type": "application/json"}
    talk(test, api_key=["k1", "k2"], max_body_bytes=2000)


def test_a_stream_that_fails_says_so() -> None:
    async def test(server: Saying) -> None:
        server.client.break_at = 2
        server.client.gate.clear()
        asked = asyncio.create_task(stream(server))
        await server.first_output()
        server.client.step_once()
        server.client.gate.set()
        events = await asked
        assert events[0]["type"] == "message_start"
        assert events[-1]["type"] == "error"
        assert events[-1]["error"]["type"] == "internal_error"
        assert "/tmp" not in events[-1]["error"]["message"]
        answer = await ask(server)
        assert answer.status_code == 500 and answer.json()["error"]["type"] == "internal_error"

    talk(test)


def test_unknown_fields_are_named() -> None:
    async def test(server: Saying) -> None:
        answer = await ask(server, context_management={"edits": []}, betas=["x"])
        assert answer.headers["x-ignored-fields"] == "context_management"
        assert answer.headers["request-id"] == answer.json()["id"]

    talk(test)
