"""Jamba, Hunyuan A13B and MiniMax M1: an array, or an object on each line, between tags for all calls."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls

_CALLS = JsonCalls(tags=("<tool_calls>",), ends=("</tool_calls>",), separators=",")

FORMATS: dict[str, ToolFormat] = {
    "jamba": _CALLS,
    "hunyuan_a13b": _CALLS,
    "minimax": _CALLS,
}
