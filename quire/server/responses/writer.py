"""The output of a response as it grows: items, and the events that say what is new.

Both come from the same steps, so a stream and a single answer hold the same items. The response around
them is `server.responses.resource`.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping
from typing import Any

from quire.protocol.message import MessageDelta
from quire.server.blocks import Blocks, Step
from quire.server.responses.items import sealed
from quire.server.state import new_id

Event = dict[str, Any]


class OutputWriter:
    """The items of one response. `feed` for all news, `finish` last; each gives events without numbers.

    custom          names of tools that take free text instead of arguments.
    remote          labels of the servers of tools that are called here, by the tools' names.
    seals_reasoning whether reasoning items carry `encrypted_content`.
    """

    def __init__(
        self,
        *,
        custom: frozenset[str] = frozenset(),
        remote: Mapping[str, str] | None = None,
        seals_reasoning: bool = False,
    ) -> None:
        self._blocks = Blocks()
        self._custom = custom
        self._remote = remote or {}
        self.pending: list[int] = []
        self._seals = seals_reasoning
        self._pieces: list[str] = []
        self._logprobs: list[Any] = []
        self._fresh: list[Any] = []
        self._status = "completed"
        self.output: list[dict[str, Any]] = []

    def feed(self, delta: MessageDelta, logprobs: list[Any] | None = None) -> list[Event]:
        """The events of news; `logprobs` are those of its tokens, of which the texts find their own."""
        if not delta.content:
            self._fresh = [] if delta.reasoning or delta.calls else self._fresh
        self._fresh += logprobs or ()
        return [one for step in self._blocks.feed(delta) for one in self._events(step)]

    def finish(self, *, is_complete: bool = True) -> list[Event]:
        """The events that close the last item."""
        self._status = "completed" if is_complete else "incomplete"
        events = [one for step in self._blocks.finish() for one in self._events(step)]
        for place in list(self.pending):
            events += self.settle(place, None, "it was not called")
        return events

    def end_turn(self) -> list[Event]:
        """The events that close the last item of a turn, after which the model goes on; see `pending`."""
        events = [one for step in self._blocks.finish() for one in self._events(step)]
        self._blocks = Blocks()
        self._fresh = []
        return events

    def settle(self, place: int, output: str | None, error: str | None) -> list[Event]:
        """The events of a call of a server's tool that has ended; `place` is one of `pending`."""
        self.pending.remove(place)
        item = self.output[place]
        status = "completed" if error is None else "failed"
        item |= {"output": output, "error": error, "status": status}
        where = {"item_id": item["id"], "output_index": place}
        done = {"output_index": place, "item": dict(item)}
        return [
            {"type": f"response.mcp_call.{status}", **where},
            {"type": "response.output_item.done", **done},
        ]

    def _events(self, step: Step) -> list[Event]:
        if step.action == "open":
            return self._open(step)
        if step.action == "add":
            self._pieces.append(step.text)
            return self._add(step)
        return self._close()

    def _place(self) -> dict[str, Any]:
        return {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1}

    def _open(self, step: Step) -> list[Event]:
        self._pieces, self._logprobs = [], []
        item: dict[str, Any]
        if step.kind == "reasoning":
            item = {"type": "reasoning", "id": f"rs_{new_id()}", "summary": [], "content": []}
        elif step.kind == "text":
            item = {"type": "message", "id": f"msg_{new_id()}", "role": "assistant", "content": []}
        elif step.name in self._remote:
            item = {"type": "mcp_call", "id": f"mcp_{new_id()}", "arguments": "", "name": step.name}
            item |= {"server_label": self._remote[step.name], "output": None, "error": None}
        elif step.name in self._custom:
            item = {"type": "custom_tool_call", "id": f"ctc_{new_id()}", "input": ""}
        else:
            item = {"type": "function_call", "id": f"fc_{new_id()}", "arguments": ""}
        if step.kind == "call" and item["type"] != "mcp_call":
            item |= {"call_id": step.call_id, "name": step.name}
        item["status"] = "in_progress"
        self.output.append(item)
        events: list[Event] = [
            {
                "type": "response.output_item.added",
                "output_index": len(self.output) - 1,
                "item": dict(item),
            }
        ]
        if item["type"] == "mcp_call":
            events.append({"type": "response.mcp_call.in_progress", **self._place()})
        if step.kind != "call":
            events.append(self._part_event("added", self._part()))
        return events

    def _part(self) -> dict[str, Any]:
        """The one part of the open item, as far as it is."""
        text = "".join(self._pieces)
        if self.output[-1]["type"] == "reasoning":
            return {"type": "reasoning_text", "text": text}
        return {
            "type": "output_text",
            "text": text,
            "annotations": [],
            "logprobs": list(self._logprobs),
        }

    def _part_event(self, what: str, part: dict[str, Any]) -> Event:
        name = "reasoning_part" if part["type"] == "reasoning_text" else "content_part"
        return {
            "type": f"response.{name}.{what}", **self._place(), "content_index": 0, "part": part
        }  # fmt: skip

    def _add(self, step: Step) -> list[Event]:
        kind = self.output[-1]["type"]
        if kind == "message":
            fresh = self._logprobs_of(step.text)
            self._logprobs += fresh
            more = {"content_index": 0, "delta": step.text, "logprobs": fresh}
            return [{"type": "response.output_text.delta", **self._place(), **more}]
        if kind == "reasoning":
            more = {"content_index": 0, "delta": step.text}
            return [{"type": "response.reasoning_text.delta", **self._place(), **more}]
        if kind in ("function_call", "mcp_call"):
            name = f"response.{kind}_arguments.delta"
            return [{"type": name, **self._place(), "delta": step.text}]
        return []  # free text stands inside JSON until the call is whole

    def _logprobs_of(self, text: str) -> list[Any]:
        """The entries of the tokens that a text is made of; those of tokens before it are dropped."""
        if not self._fresh:
            return []
        wanted = text.encode("utf-8", "replace")
        ends, size = [], 0
        for entry in self._fresh:
            size += len(entry["bytes"])
            ends.append(size)
        data = bytes(byte for entry in self._fresh for byte in entry["bytes"])
        start = data.rfind(wanted)
        if start < 0:
            found, self._fresh = self._fresh, []
            return found
        first = bisect.bisect_right(ends, start)
        last = bisect.bisect_left(ends, start + len(wanted)) + 1
        found, self._fresh = self._fresh[first:last], self._fresh[last:]
        return found

    def _close(self) -> list[Event]:
        item, text = self.output[-1], "".join(self._pieces)
        events: list[Event] = []
        if item["type"] in ("function_call", "mcp_call"):
            item["arguments"] = text
            more = {"name": item["name"], "arguments": text}
            name = f"response.{item['type']}_arguments.done"
            events.append({"type": name, **self._place(), **more})
            if item["type"] == "mcp_call":
                self.pending.append(len(self.output) - 1)
                return events
        elif item["type"] == "custom_tool_call":
            item["input"] = _free_text(text)
            place = {**self._place(), "input": item["input"]}
            delta = {"type": "response.custom_tool_call_input.delta", **self._place()}
            events.append({**delta, "delta": item["input"]})
            events.append({"type": "response.custom_tool_call_input.done", **place})
        else:
            events += self._close_part(item, text)
        item["status"] = self._status
        done = {"output_index": len(self.output) - 1, "item": dict(item)}
        return [*events, {"type": "response.output_item.done", **done}]

    def _close_part(self, item: dict[str, Any], text: str) -> list[Event]:
        part = self._part()
        item["content"] = [part]
        if item["type"] == "reasoning":
            if self._seals:
                item["encrypted_content"] = sealed(text)
            name, more = "response.reasoning_text.done", {"text": text}
        else:
            name, more = "response.output_text.done", {"text": text, "logprobs": part["logprobs"]}
        done = {"type": name, **self._place(), "content_index": 0, **more}
        return [done, self._part_event("done", part)]


def _free_text(arguments: str) -> str:
    """The input of a tool that takes free text, out of its arguments; as they are if they are broken."""
    try:
        found = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    given = found.get("input") if isinstance(found, dict) else None
    return given if isinstance(given, str) else arguments
