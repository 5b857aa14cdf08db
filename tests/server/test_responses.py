"""What /v1/responses answers: items and events, kept responses, the background, and wrong requests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from quire.server.responses import live
from quire.server.responses.live import EventLog
from tests.server.saying import MAX_LEN, MODEL, Saying, saying, talk

TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
PATH = "/v1/responses"


async def ask(server: Saying, path: str = PATH, **body: Any) -> Any:
    given = {"model": MODEL, "input": "Hello", **body}
    return await server.http.post(path, json={k: v for k, v in given.items() if v != "-"})


async def said(server: Saying, **body: Any) -> dict[str, Any]:
    answer = await ask(server, **body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events_of(text: str, first: int = 0) -> list[dict[str, Any]]:
    events = []
    for number, block in enumerate(text.strip().split("\n\n"), first):
        name, data = block.split("\n")
        events.append(json.loads(data.removeprefix("data: ")))
        assert name == "event: " + events[-1]["type"]
        assert events[-1]["sequence_number"] == number
    return events


async def stream(server: Saying, **body: Any) -> list[dict[str, Any]]:
    answer = await ask(server, stream=True, **body)
    assert answer.status_code == 200, answer.text
    return events_of(answer.text)


async def ended(server: Saying, response_id: str) -> dict[str, Any]:
    for _ in range(500):
        found: dict[str, Any] = (await server.http.get(f"{PATH}/{response_id}")).json()
        if found["status"] not in ("queued", "in_progress"):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("it does not end")


async def slow(server: Saying, **body: Any) -> dict[str, Any]:
    """A response in the background that has said something and waits for the engine."""
    server.client.gate.clear()
    server.client.text = "One, two, three, four, five, six, seven."
    found = await said(server, background=True, **body)
    assert found["status"] == "queued"
    while not server.client.live:
        await asyncio.sleep(0.005)
    for _ in range(3):
        server.client.step_once()
    while (await server.http.get(f"{PATH}/{found['id']}")).json()["status"] == "queued":
        await asyncio.sleep(0.005)
    return found


def without_ids(value: Any) -> Any:
    """The same, but for what is drawn anew for each response."""
    changing = ("id", "call_id", "item_id", "created_at", "completed_at")
    if isinstance(value, dict):
        return {key: without_ids(one) for key, one in value.items() if key not in changing}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


def test_a_text() -> None:
    async def test(server: Saying) -> None:
        found = await said(server, metadata={"a": "b"}, temperature=0.5, user="u")
        assert found["id"].startswith("resp_") and found["object"] == "response"
        assert found["status"] == "completed" and found["model"] == MODEL
        item = found["output"][0]
        assert item["type"] == "message" and item["status"] == "completed"
        part = {"type": "output_text", "text": "Hello.", "annotations": [], "logprobs": []}
        assert item["content"] == [part]
        usage = found["usage"]
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
        assert usage["input_tokens_details"]["cached_tokens"] == 2
        echoed = {"metadata": {"a": "b"}, "temperature": 0.5, "user": "u", "tools": []}
        assert echoed.items() <= found.items()
        assert found["incomplete_details"] is None and found["error"] is None
        counted = (await ask(server, PATH + "/input_tokens")).json()
        assert counted == {
            "object": "response.input_tokens", "input_tokens": usage["input_tokens"]
        }  # fmt: skip

    talk(test)


def test_a_stream_is_in_order_and_equal_to_the_whole() -> None:
    async def test(server: Saying) -> None:
        server.client.text = "<think>Let me see.</think>I look.\n" + CALL + "\n" + CALL
        body = {"tools": [TOOL], "include": ["reasoning.encrypted_content"]}
        whole = await said(server, **body)
        events = await stream(server, **body)
        kinds = [event["type"] for event in events]
        assert kinds[:3] == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
        ]
        assert kinds[-1] == "response.completed"
        last = events[-1]["response"]
        assert without_ids(last["output"]) == without_ids(whole["output"])
        assert without_ids({**last, "usage": 0}) == without_ids({**whole, "usage": 0})
        output = last["output"]
        types = [item["type"] for item in output]
        assert types == ["reasoning", "message", "function_call", "function_call"]
        assert output[0]["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
        assert output[0]["encrypted_content"]
        assert json.loads(output[2]["arguments"]) == {"city": "Paris"}
        assert output[2]["call_id"] != output[3]["call_id"]
        assert last["usage"]["output_tokens_details"]["reasoning_tokens"] > 2
        done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
        assert done == output
        for place, item in enumerate(output):
            own = [one for one in events if one.get("output_index") == place]
            first, final = own[0], own[-1]
            assert first["type"] == "response.output_item.added"
            assert first["item"]["status"] == "in_progress"
            assert final["type"] == "response.output_item.done"
            deltas = [one["delta"] for one in own if one["type"].endswith(".delta")]
            full = item.get("arguments") or item["content"][0]["text"]
            assert "".join(deltas) == full
            assert all(one["item_id"] == item["id"] for one in own[1:-1])

    talk(test, reasoning="qwen3")


def test_an_answer_cut_short_is_incomplete() -> None:
    async def test(server: Saying) -> None:
        found = await said(server, max_output_tokens=1)
        assert found["status"] == "incomplete"
        assert found["incomplete_details"] == {"reason": "max_output_tokens"}
        assert found["output"][-1]["status"] == "incomplete"
        assert (await stream(server, max_output_tokens=1))[-1]["type"] == "response.incomplete"

    talk(test)


def test_logprobs_follow_the_text() -> None:
    async def test(server: Saying) -> None:
        server.client.text = "<think>Hmm.</think>Hello there."
        body = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
        part = (await said(server, **body))["output"][1]["content"][0]
        assert "".join(one["token"] for one in part["logprobs"]) == part["text"] == "Hello there."
        assert all(len(one["top_logprobs"]) == 2 for one in part["logprobs"])
        events = await stream(server, **body)
        pieces = [one for event in events for one in event.get("logprobs", ()) if "delta" in event]
        assert pieces == part["logprobs"]

    talk(test, reasoning="qwen3")


def test_a_conversation_goes_on_from_what_is_kept() -> None:
    async def test(server: Saying) -> None:
        first = await said(server, input="My name is Ann.", instructions="Be terse.")
        server.client.text = CALL
        second = await said(
            server, input="Weather?", previous_response_id=first["id"], tools=[TOOL]
        )
        assert second["previous_response_id"] == first["id"]
        call = second["output"][0]
        server.client.text = "Sunny."
        result = {"type": "function_call_output", "call_id": call["call_id"], "output": "sun, 20"}
        third = await said(
            server, input=[result], previous_response_id=second["id"], tools=[TOOL], store=False
        )
        shown = server.client.prompts[-1]
        parts = ["My name is Ann.", "Hello.", "Weather?", '"Paris"', "sun, 20"]
        places = [shown.index(part) for part in parts]
        assert places == sorted(places)
        assert "Be terse." not in shown, "instructions are those of one request"
        answer = await ask(server, previous_response_id=third["id"])
        assert answer.status_code == 404, "it was not to be stored"
        assert (await server.http.delete(f"{PATH}/{first['id']}")).json()["deleted"] is True
        answer = await ask(server, previous_response_id=second["id"])
        assert answer.status_code == 404
        assert answer.json()["error"]["param"] == "previous_response_id"
        assert first["id"] in answer.json()["error"]["message"]

    talk(test)


def test_all_kinds_of_items_reach_the_model() -> None:
    items = [
        {"role": "developer", "content": "Rules apply."},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Look"}]},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}], "id": "rs_1"},
        {
            "type": "function_call",
            "call_id": "a",
            "name": "get_weather",
            "arguments": '{"city":"Bonn"}',
        },
        {"type": "custom_tool_call", "call_id": "b", "name": "patch", "input": "free text"},
        {"type": "function_call_output", "call_id": "a", "output": "rain"},
        {
            "type": "custom_tool_call_output",
            "call_id": "b",
            "output": [{"type": "input_text", "text": "patched"}],
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Ok."}],
        },
        {"role": "user", "content": "And?"},
    ]

    async def test(server: Saying) -> None:
        custom = {"type": "custom", "name": "patch", "format": {"type": "text"}}
        answer = await ask(
            server,
            input=items,
            instructions="Be terse.",
            tools=[TOOL, custom, {"type": "web_search"}],
            client_metadata={"x": 1},
        )
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-ignored-fields"] == "client_metadata, tools.2"
        shown = server.client.prompts[-1]
        order = [
            "Be terse.\n\nRules apply.",
            "Look",
            "Bonn",
            "free text",
            "rain",
            "patched",
            "Ok.",
            "And?",
        ]
        places = [shown.index(part) for part in order]
        assert places == sorted(places)
        assert "web_search" not in shown

    talk(test)


def test_a_tool_of_free_text() -> None:
    async def test(server: Saying) -> None:
        arguments = json.dumps({"input": "*** Begin Patch"})
        server.client.text = (
            f'<tool_call>\n{{"name": "patch", "arguments": {arguments}}}\n</tool_call>'
        )
        tools = [{"type": "custom", "name": "patch", "description": "Patches"}]
        item = (await said(server, tools=tools))["output"][0]
        assert (item["type"], item["input"]) == ("custom_tool_call", "*** Begin Patch")

    talk(test)


def test_choices_of_tools_and_formats() -> None:
    async def test(server: Saying) -> None:
        server.client.text = CALL
        for choice in ("required", {"type": "function", "name": "get_weather"}):
            item = (await said(server, tools=[TOOL], tool_choice=choice))["output"][0]
            assert item["type"] == "function_call" and item["arguments"] == '{"city": "Paris"}'
            assert server.client.grammars[-1] is not None
        schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
        form = {"type": "json_schema", "name": "x", "schema": schema, "strict": True}
        await said(server, text={"format": form})
        grammar = server.client.grammars[-1]
        assert grammar is not None and json.loads(grammar.text) == schema
        await said(server, text={"format": {"type": "json_object"}})
        assert server.client.grammars[-1] is not None
        await said(server, structured_outputs={"choice": ["a", "b"]})
        assert server.client.grammars[-1] is not None
        await said(server, text={"verbosity": "low"})
        assert server.client.grammars[-1] is None
        server.client.text = CALL + "\n" + CALL
        found = await said(server, tools=[TOOL], parallel_tool_calls=False)
        assert len(found["output"]) == 1
        found = await said(server, tools=[TOOL], tool_choice="none")
        assert found["output"][0]["type"] == "message"

    talk(test)


def test_truncation_drops_the_oldest_turns() -> None:
    long = [{"role": "user", "content": f"turn {n} " + "and " * 40} for n in range(20)]
    items = [
        {"role": "system", "content": "Rules."},
        *long,
        {"role": "user", "content": "last one"},
    ]

    async def test(server: Saying) -> None:
        answer = await ask(server, input=items)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error" and error["param"] == "input"
        assert str(MAX_LEN - 1) in error["message"]
        found = await said(server, input=items, truncation="auto", max_output_tokens=100)
        assert MAX_LEN - 300 < found["usage"]["input_tokens"] <= MAX_LEN - 100
        shown = server.client.prompts[-1]
        assert "Rules." in shown and "last one" in shown and "turn 19 " in shown
        assert "turn 0 " not in shown

    talk(test)


def test_kept_responses() -> None:
    async def test(server: Saying) -> None:
        items = [{"role": "user", "content": f"part {number}"} for number in range(5)]
        made = await said(server, input=items)
        place = f"{PATH}/{made['id']}"
        assert (await server.http.get(place)).json() == made
        listed = (await server.http.get(place + "/input_items?limit=2")).json()
        assert [item["content"] for item in listed["data"]] == ["part 4", "part 3"]
        assert listed["has_more"] is True and listed["last_id"] == listed["data"][1]["id"]
        rest = await server.http.get(place + f"/input_items?order=desc&after={listed['last_id']}")
        assert [item["content"] for item in rest.json()["data"]] == ["part 2", "part 1", "part 0"]
        for query in ("limit=0", "limit=x", "order=up", "after=nobody"):
            assert (await server.http.get(f"{place}/input_items?{query}")).status_code == 400
        assert (await server.http.post(place + "/cancel")).status_code == 400
        assert (await server.http.get(place + "?stream=true")).status_code == 400
        assert (await server.http.delete(place)).status_code == 200
        asked = [
            await server.http.get(place),
            await server.http.delete(place),
            await server.http.post(place + "/cancel"),
            await server.http.get(place + "/input_items"),
            await server.http.get(place + "?stream=true"),
        ]
        for answer in asked:
            assert answer.status_code == 404
            error = answer.json()["error"]
            assert (error["type"], error["param"]) == ("invalid_request_error", "response_id")

    talk(test)


def test_names_are_taken_once() -> None:
    async def test(server: Saying) -> None:
        assert (await said(server, request_id="resp_mine"))["id"] == "resp_mine"
        assert (await ask(server, request_id="resp_mine")).status_code == 400
        headers = {"x-request-id": "same"}
        body = {"model": MODEL, "input": "Hi"}
        answers = [await server.http.post(PATH, json=body, headers=headers) for _ in range(2)]
        assert len({answer.json()["id"] for answer in answers}) == 2

    talk(test)


def test_in_the_background() -> None:
    async def test(server: Saying) -> None:
        made = await slow(server)
        place = f"{PATH}/{made['id']}"
        found = (await server.http.get(place)).json()
        assert found["status"] == "in_progress" and found["output"]
        answer = await ask(server, previous_response_id=made["id"])
        assert answer.status_code == 400 and "running" in answer.json()["error"]["message"]
        reading = asyncio.create_task(server.http.get(place + "?stream=true"))
        await asyncio.sleep(0.05)
        server.client.gate.set()
        server.client._work.put("")
        events = events_of((await reading).text)
        assert events[0]["type"] == "response.created"
        assert events[-1]["type"] == "response.completed"
        found = await ended(server, made["id"])
        assert found["output"][0]["content"][0]["text"] == server.client.text
        assert events[-1]["response"] == found
        again = await server.http.get(place + "?stream=true&starting_after=2")
        assert events_of(again.text, first=3) == events[3:]

    talk(test)


def test_cancelling_and_deleting_in_the_background() -> None:
    async def test(server: Saying) -> None:
        made = await slow(server)
        for _ in range(2):  # the second time it changes nothing
            answer = await server.http.post(f"{PATH}/{made['id']}/cancel")
            assert answer.status_code == 200 and answer.json()["status"] == "cancelled"
        assert await server.is_clean()
        assert (await server.http.get(f"{PATH}/{made['id']}")).json()["status"] == "cancelled"
        events = events_of((await server.http.get(f"{PATH}/{made['id']}?stream=true")).text)
        assert events[-1]["type"] == "response.cancelled"
        made = await slow(server)
        assert (await server.http.delete(f"{PATH}/{made['id']}")).status_code == 200
        assert await server.is_clean()
        assert (await server.http.get(f"{PATH}/{made['id']}")).status_code == 404
        server.client.gate.set()
        assert (await said(server))["status"] == "completed"

    talk(test)


def test_deleting_while_streaming() -> None:
    async def test(server: Saying) -> None:
        server.client.gate.clear()
        reading = asyncio.create_task(stream(server, request_id="resp_live"))
        while not server.client.live:
            await asyncio.sleep(0.005)
        server.client.step_once()
        found = (await server.http.get(f"{PATH}/resp_live")).json()
        assert found["status"] == "in_progress"
        assert (await server.http.post(f"{PATH}/resp_live/cancel")).status_code == 400
        assert (await server.http.delete(f"{PATH}/resp_live")).status_code == 200
        assert (await server.http.get(f"{PATH}/resp_live")).status_code == 404
        server.client.gate.set()
        server.client._work.put("")
        assert (await reading)[-1]["type"] == "response.completed"
        assert (await server.http.get(f"{PATH}/resp_live")).status_code == 404

    talk(test)


def test_a_response_may_be_referred_to_at_its_last_event() -> None:
    async def test(server: Saying) -> None:
        async with server.http.stream(
            "POST", PATH, json={"model": MODEL, "input": "Hi", "stream": True}
        ) as answer:
            text = (await answer.aread()).decode()
        name = events_of(text)[-1]["response"]["id"]
        assert (await ask(server, previous_response_id=name)).status_code == 200

    talk(test)


def test_the_number_in_the_background_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_BACKGROUND", 1)

    async def test(server: Saying) -> None:
        made = await slow(server)
        answer = await ask(server, background=True)
        assert answer.status_code == 429 and answer.headers["retry-after"]
        await server.http.post(f"{PATH}/{made['id']}/cancel")
        server.client.gate.set()
        made = await said(server, background=True)
        assert (await ended(server, made["id"]))["status"] == "completed"

    talk(test)


def test_a_log_of_events_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_LOG_BYTES", 1000)

    async def test() -> None:
        log = EventLog()
        for number in range(100):
            log.add(*log.numbered([{"type": "a", "number": number}]))
        log.end()
        assert log.kept() is None
        events = [event async for event in log.read(0)]
        assert sum(map(len, events)) <= 1000
        assert b'"sequence_number":99' in events[-1]

    asyncio.run(test())


def test_a_file_serves_the_next_server(tmp_path: Path) -> None:
    path = str(tmp_path / "kept.sqlite3")

    async def first() -> tuple[str, str]:
        async with saying(responses_store=path) as server:
            made = await said(server, input="My name is Ann.")
            running = await slow(server, request_id="resp_running")
            for task in list(server.app.state.responses._tasks.values()):
                task.cancel()
                await asyncio.wait({task})
            return made["id"], running["id"]

    made, running = asyncio.run(first())

    async def second(server: Saying) -> None:
        assert (await said(server, previous_response_id=made))["status"] == "completed"
        assert "My name is Ann." in server.client.prompts[-1]
        found = (await server.http.get(f"{PATH}/{running}")).json()
        assert found["status"] == "failed" and "stopped" in found["error"]["message"]

    talk(second, responses_store=path)


def test_without_a_store() -> None:
    async def test(server: Saying) -> None:
        made = await said(server)
        assert made["status"] == "completed" and made["store"] is False
        assert (await server.http.get(f"{PATH}/{made['id']}")).status_code == 404
        answer = await ask(server, background=True)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["type"], error["param"]) == ("invalid_request_error", "background")

    talk(test, responses_store="none")


WRONG: list[tuple[dict[str, Any], int, str | None]] = [
    ({"model": "other"}, 404, "model"),
    ({"input": "-"}, 400, "input"),
    ({"input": ""}, 400, "input"),
    ({"input": []}, 400, "input"),
    ({"input": 5}, 400, "input"),
    ({"input": [5]}, 400, "input[0]"),
    ({"input": [{"type": "nonsense"}]}, 400, "input[0]"),
    ({"input": [{"type": "item_reference", "id": "x"}]}, 400, "input[0]"),
    ({"input": [{"role": "root", "content": "x"}]}, 400, "input[0].role"),
    ({"input": [{"role": "user"}]}, 400, "input[0].content"),
    ({"input": [{"role": "user", "content": []}]}, 400, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "x"}]}]}, 400, "input[0].content[0]"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]},
        400, "input[0].content[0]",
    ),
    ({"input": [{"type": "function_call", "name": "f"}]}, 400, "input[0]"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, 400, "input[0].call_id"),
    ({"previous_response_id": "resp_none"}, 404, "previous_response_id"),
    ({"background": True, "store": False}, 400, "background"),
    ({"max_output_tokens": 0}, 400, "max_output_tokens"),
    ({"temperature": -1}, 400, "temperature"),
    ({"top_logprobs": 21}, 400, "top_logprobs"),
    ({"truncation": "middle"}, 400, "truncation"),
    ({"prompt": {"id": "x"}}, 400, "prompt"),
    ({"conversation": "x"}, 400, "conversation"),
    ({"request_id": "mine"}, 400, "request_id"),
    ({"metadata": {"a": 5}}, 400, "metadata"),
    ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata"),
    ({"text": {"format": {"type": "x"}}}, 400, "text.format"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, 400, "text.format.schema"),
    (
        {"text": {"format": {"type": "text"}}, "structured_outputs": {"choice": ["a"]}},
        400, "structured_outputs",
    ),
    ({"tool_choice": "required"}, 400, "tool_choice"),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "name": "f"}}, 400, "tool_choice"),
    ({"tools": [{"type": "web_search"}, {"type": "function"}]}, 400, "tools[1].name"),
    ({"tools": [{"type": "nonsense"}]}, 400, "tools[0]"),
    ({"tools": [TOOL, TOOL]}, 400, "tools[1].name"),
    ({"reasoning": {"effort": 5}}, 400, "reasoning.effort"),
]  # fmt: skip


def test_wrong_requests() -> None:
    async def test(server: Saying) -> None:
        for body, status, param in WRONG:
            for more in ({}, {"stream": True}):
                answer = await ask(server, **body, **more)
                assert answer.status_code == status, (body, answer.text)
                error = answer.json()["error"]
                assert error["code"] == status and error["param"] == param, (body, error)
        assert (await ask(server)).status_code == 200

    talk(test)


def test_what_the_engine_read_and_wrote() -> None:
    async def test(server: Saying) -> None:
        found = await said(server, enable_response_messages=True)
        asked, answered = found["input_messages"][0], found["output_messages"][0]
        assert (
            "Hello" in asked["message"] and len(asked["tokens"]) == found["usage"]["input_tokens"]
        )
        assert answered["message"] == "Hello."
        assert len(answered["tokens"]) == found["usage"]["output_tokens"]

    talk(test)


def test_two_channels_are_two_items() -> None:
    async def test(server: Saying) -> None:
        server.client.text = (
            "<|channel|>analysis<|message|>Let me see.<|end|>"
            "<|start|>assistant<|channel|>final<|message|>It is Paris."
        )
        found = await said(server)
        texts = [(item["type"], item["content"][0]["text"]) for item in found["output"]]
        assert texts == [("reasoning", "Let me see."), ("message", "It is Paris.")]
        events = await stream(server)
        assert without_ids(events[-1]["response"]["output"]) == without_ids(found["output"])

    talk(test, reasoning="openai_gptoss")


def test_a_stream_that_fails_says_so() -> None:
    async def test(server: Saying) -> None:
        server.client.break_at = 2
        server.client.gate.clear()
        asked = asyncio.create_task(stream(server))
        await server.first_output()
        server.client.step_once()
        server.client.gate.set()
        last = (await asked)[-1]
        assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
        assert last["response"]["error"]["code"] == "server_error"
        assert "/tmp" not in last["response"]["error"]["message"]
        name = last["response"]["id"]
        assert (await server.http.get(f"{PATH}/{name}")).json()["status"] == "failed"
        assert (await ask(server)).status_code == 500
        made = await said(server, background=True)
        assert (await ended(server, made["id"]))["status"] == "failed"

    talk(test)


def test_priorities_reach_the_engine() -> None:
    async def test(server: Saying) -> None:
        for path, body in (
            (PATH, {"model": MODEL, "input": "Hi"}),
            (
                "/v1/messages",
                {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]},
            ),
        ):
            await server.http.post(path, json={**body, "priority": 3})
            await server.http.post(path, json=body, headers={"x-vllm-priority": "7"})
            assert [request.priority for request in server.client.requests[-2:]] == [3, 7]

    talk(test)
