"""Granite 3: an array of objects behind a token or a tag; Granite 20B: a tag before each object."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls

FORMATS: dict[str, ToolFormat] = {
    "granite": JsonCalls(
        tags=("<|tool_call|>", "<tool_call>"), ends=("</tool_call>",), needs_special_tokens=True
    ),
    "granite-20b-fc": JsonCalls(tags=("<function_call>",), ends=("</function_call>",)),
}
