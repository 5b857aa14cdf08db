"""A message in Anthropic's form: its events as it grows, and the whole of it.

Both come from the same steps, so a stream and a single answer hold the same blocks.
"""

from __future__ import annotations

import json
from typing import Any

from quire.protocol.message import MessageDelta
from quire.server.blocks import Blocks, Step
from quire.server.completion_output import encode

SIGNATURE = "cXVpcmU="
"""The signature of every thinking block: clients want one, and nobody checks it here."""

_PIECES = {
    "text": ("text_delta", "text"),
    "reasoning": ("thinking_delta", "thinking"),
    "call": ("input_json_delta", "partial_json"),
}


def event(payload: dict[str, Any]) -> bytes:
    """One event of a stream; its name is its type."""
    return b"event: " + str(payload["type"]).encode() + b"\ndata: " + encode(payload) + b"\n\n"


def usage_of(prompt: int, cached: int, output: int) -> dict[str, int]:
    """Tokens as Anthropic counts them: those found in the cache are apart from `input_tokens`."""
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": output,
    }


class MessageWriter:
    """One message. `begin` first, `feed` for all news, `end` last; each gives the events of a stream."""

    def __init__(self, message_id: str, model: str) -> None:
        self._head = {
            "id": message_id,
            "type": "message",
            "role": "assistant",
            "model": model,
        }
        self._blocks = Blocks()
        self.content: list[dict[str, Any]] = []
        self._pieces: list[str] = []

    def begin(self, usage: dict[str, int]) -> list[dict[str, Any]]:
        """The first event, and a sign of life."""
        message = {**self.whole(None, None, usage), "content": []}
        return [{"type": "message_start", "message": message}, {"type": "ping"}]

    def feed(self, delta: MessageDelta) -> list[dict[str, Any]]:
        """The events of news."""
        return [one for step in self._blocks.feed(delta) for one in self._events(step)]

    def close(self) -> list[dict[str, Any]]:
        """The events that close the last block."""
        return [one for step in self._blocks.finish() for one in self._events(step)]

    def end(
        self, stop_reason: str, stop_sequence: str | None, usage: dict[str, int]
    ) -> list[dict[str, Any]]:
        """The last two events, after `close`."""
        delta = {"stop_reason": stop_reason, "stop_sequence": stop_sequence}
        return [
            {"type": "message_delta", "delta": delta, "usage": usage},
            {"type": "message_stop"},
        ]

    def whole(
        self, stop_reason: str | None, stop_sequence: str | None, usage: dict[str, int]
    ) -> dict[str, Any]:
        """The message as far as it is."""
        return {
            **self._head,
            "content": self.content,
            "stop_reason": stop_reason,
            "stop_sequence": stop_sequence,
            "usage": usage,
        }

    @property
    def has_calls(self) -> bool:
        """Whether a tool is called."""
        return any(block["type"] == "tool_use" for block in self.content)

    def _events(self, step: Step) -> list[dict[str, Any]]:
        if step.action == "open":
            return [self._open(step)]
        index = len(self.content) - 1
        if step.action == "add":
            self._pieces.append(step.text)
            kind, name = _PIECES[step.kind]
            delta = {"type": kind, name: step.text}
            return [{"type": "content_block_delta", "index": index, "delta": delta}]
        return self._close(step, index)

    def _open(self, step: Step) -> dict[str, Any]:
        block: dict[str, Any]
        if step.kind == "text":
            block = {"type": "text", "text": ""}
        elif step.kind == "reasoning":
            block = {"type": "thinking", "thinking": "", "signature": ""}
        else:
            block = {"type": "tool_use", "id": step.call_id, "name": step.name, "input": {}}
        self.content.append(block)
        self._pieces = []
        index = len(self.content) - 1
        return {"type": "content_block_start", "index": index, "content_block": dict(block)}

    def _close(self, step: Step, index: int) -> list[dict[str, Any]]:
        block, text = self.content[index], "".join(self._pieces)
        events: list[dict[str, Any]] = []
        if step.kind == "text":
            block["text"] = text
        elif step.kind == "reasoning":
            block |= {"thinking": text, "signature": SIGNATURE}
            delta = {"type": "signature_delta", "signature": SIGNATURE}
            events.append({"type": "content_block_delta", "index": index, "delta": delta})
        else:
            block["input"] = _object(text)
        return [*events, {"type": "content_block_stop", "index": index}]


def _object(text: str) -> Any:
    """The arguments of a call; what an answer cut short left unfinished is an empty object."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
