"""ERNIE 4.5: Hermes' tags, and a frame around what is said."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls

FORMATS: dict[str, ToolFormat] = {
    "ernie45": JsonCalls(
        tags=("<tool_call>",),
        ends=("</tool_call>\n", "</tool_call>"),
        drops=("<response>\n", "<response>", "\n</response>", "</response>"),
    ),
}
