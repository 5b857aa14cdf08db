"""Cohere Command: an array between tokens of action, what is said between tokens of response."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls
from quire.frontend.parsers.json_text import CallKeys

_COMMAND = JsonCalls(
    tags=("<|START_ACTION|>",),
    ends=("<|END_ACTION|>",),
    drops=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    keys=CallKeys(name=("tool_name", "name")),
    needs_special_tokens=True,
)

FORMATS: dict[str, ToolFormat] = {
    "cohere": _COMMAND,
    "cohere_command3": _COMMAND,
    "cohere_command4": _COMMAND,
}
