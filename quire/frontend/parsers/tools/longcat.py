"""LongCat: Hermes with a name of its own for the tags."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls

FORMATS: dict[str, ToolFormat] = {
    "longcat": JsonCalls(tags=("<longcat_tool_call>",), ends=("</longcat_tool_call>",)),
}
