"""Llama 3 and 4: JSON objects that are the whole message, with semicolons between them."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls
from quire.frontend.parsers.json_text import CallKeys

_LLAMA = JsonCalls(
    tags=("<|python_tag|>",),
    openings="{[",
    separators=";,",
    keys=CallKeys(needs_arguments=True),
    needs_special_tokens=True,
)

FORMATS: dict[str, ToolFormat] = {"llama3_json": _LLAMA, "llama4_json": _LLAMA}
