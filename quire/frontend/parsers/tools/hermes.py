"""Hermes, Qwen 2.5, Granite 4 and others: each call a JSON object between tags."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls

_HERMES = JsonCalls(tags=("<tool_call>",), ends=("</tool_call>",))

FORMATS: dict[str, ToolFormat] = {"hermes": _HERMES, "granite4": _HERMES}
