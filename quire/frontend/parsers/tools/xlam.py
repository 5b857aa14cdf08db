"""xLAM: an array that is the whole message, or in a code block, or behind one of several tags."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls
from quire.frontend.parsers.json_text import CallKeys

FORMATS: dict[str, ToolFormat] = {
    "xlam": JsonCalls(
        tags=("```json", "[TOOL_CALLS]", "<tool_call>"),
        ends=("```", "</tool_call>", "[/TOOL_CALLS]"),
        openings="[",
        keys=CallKeys(needs_arguments=True),
        separators=",",
    ),
}
