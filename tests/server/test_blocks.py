"""Messages as blocks: one open at a time, whatever the cuts, with the same result in both APIs' forms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from quire.protocol.message import CallDelta, MessageDelta
from quire.server.blocks import Blocks
from quire.server.messages.writer import MessageWriter
from quire.server.responses.writer import OutputWriter

WHOLE = [
    ("reasoning", "Let me see. "),
    ("text", "I shall look.\n"),
    ("call", ("c1", "find", '{"city": "Paris"}')),
    ("call", ("c2", "find", '{"city": "Rome"}')),
    ("text", "Done."),
]


def deltas(size: int) -> list[MessageDelta]:
    """The same message in pieces of `size` characters."""
    found, calls = [], -1
    for kind, value in WHOLE:
        if kind == "call":
            calls += 1
            call_id, name, text = value
            found.append(MessageDelta(calls=[CallDelta(index=calls, id=call_id, name=name)]))
        else:
            text = value
        for start in range(0, len(text), size):
            piece = text[start : start + size]
            if kind == "reasoning":
                found.append(MessageDelta(reasoning=piece))
            elif kind == "text":
                found.append(MessageDelta(content=piece))
            else:
                found.append(MessageDelta(calls=[CallDelta(index=calls, arguments=piece)]))
    return found


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_one_block_is_open_at_a_time(size: int) -> None:
    blocks, open_kind, found = Blocks(), None, []
    for step in [one for delta in deltas(size) for one in blocks.feed(delta)] + blocks.finish():
        if step.action == "open":
            assert open_kind is None
            open_kind = step.kind
            found.append([step.kind, "", step.call_id])
        elif step.action == "add":
            assert open_kind == step.kind
            found[-1][1] += step.text
        else:
            assert open_kind == step.kind
            open_kind = None
    assert open_kind is None
    assert found == [
        [kind, value[2], value[0]] if kind == "call" else [kind, value, ""] for kind, value in WHOLE
    ]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["\n", " "], ["\n "]),  # nothing else was said
        ([" \n", "Hi", " "], [" \nHi "]),
    ],
)
def test_white_space_alone_is_a_text_only_where_there_is_nothing_else(
    pieces: list[str], expected: list[str]
) -> None:
    writer = MessageWriter("msg_1", "m")
    for piece in pieces:
        writer.feed(MessageDelta(content=piece))
    writer.close()
    assert [block["text"] for block in writer.content] == expected
    between = MessageWriter("msg_1", "m")
    for delta in (
        MessageDelta(calls=[CallDelta(index=0, id="a", name="f", arguments="{}")]),
        MessageDelta(content="\n"),
        MessageDelta(calls=[CallDelta(index=1, id="b", name="f", arguments="{}")]),
    ):
        between.feed(delta)
    between.close()
    assert [block["type"] for block in between.content] == ["tool_use", "tool_use"]


def replay_anthropic(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The content that a client puts together."""
    content: list[dict[str, Any]] = []
    for event in events:
        if event["type"] == "content_block_start":
            assert event["index"] == len(content)
            content.append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(content) - 1
            delta, block = event["delta"], content[-1]
            if delta["type"] == "text_delta":
                block["text"] += delta["text"]
            elif delta["type"] == "thinking_delta":
                block["thinking"] += delta["thinking"]
            elif delta["type"] == "signature_delta":
                block["signature"] = delta["signature"]
            else:
                block["json"] += delta["partial_json"]
    for block in content:
        text = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(text)
    return content


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_a_message_put_together_from_events_is_the_whole(size: int) -> None:
    writer = MessageWriter("msg_1", "m")
    events = [event for delta in deltas(size) for event in writer.feed(delta)] + writer.close()
    assert replay_anthropic(events) == writer.content
    assert [block["type"] for block in writer.content] == [
        "thinking", "text", "tool_use", "tool_use", "text"
    ]  # fmt: skip
    assert writer.content[2]["input"] == {"city": "Paris"} and writer.content[2]["id"] == "c1"
    assert all(event["type"] != "content_block_stop" or "index" in event for event in events)


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_items_put_together_from_events_are_the_whole(size: int) -> None:
    writer = OutputWriter(seals_reasoning=True)
    events = [event for delta in deltas(size) for event in writer.feed(delta)] + writer.finish()
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == writer.output
    joined: dict[str, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            joined[event["item_id"]] = joined.get(event["item_id"], "") + event["delta"]
        if event["type"] in ("response.output_text.done", "response.reasoning_text.done"):
            assert joined[event["item_id"]] == event["text"]
        if event["type"] == "response.function_call_arguments.done":
            assert joined[event["item_id"]] == event["arguments"]
    kinds = [item["type"] for item in writer.output]
    assert kinds == ["reasoning", "message", "function_call", "function_call", "message"]
    assert [item["status"] for item in writer.output] == ["completed"] * 5
    assert writer.output[0]["encrypted_content"].startswith("quire1:")


def test_a_tool_of_free_text_gets_its_text() -> None:
    writer = OutputWriter(custom=frozenset({"patch"}))
    text = json.dumps({"input": "*** Begin\n+é"})
    call = CallDelta(index=0, id="c", name="patch", arguments=text)
    events = writer.feed(MessageDelta(calls=[call])) + writer.finish()
    assert writer.output[0]["type"] == "custom_tool_call"
    assert writer.output[0]["input"] == "*** Begin\n+é"
    assert "response.custom_tool_call_input.done" in [event["type"] for event in events]


def test_a_call_that_was_cut_short_is_still_an_object() -> None:
    writer = MessageWriter("msg_1", "m")
    call = CallDelta(index=0, id="c", name="f", arguments='{"a": ')
    writer.feed(MessageDelta(calls=[call]))
    writer.close()
    assert writer.content[0]["input"] == {}
    output = OutputWriter()
    output.feed(MessageDelta(calls=[call]))
    output.finish(is_complete=False)
    assert output.output[0]["arguments"] == '{"a": ' and output.output[0]["status"] == "incomplete"
