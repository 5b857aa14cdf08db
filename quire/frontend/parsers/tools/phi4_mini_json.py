"""Phi-4 mini: an array behind a word, or between tokens."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls

FORMATS: dict[str, ToolFormat] = {
    "phi4_mini_json": JsonCalls(
        tags=("functools", "<|tool_call|>"), ends=("<|/tool_call|>",), needs_special_tokens=True
    ),
}
