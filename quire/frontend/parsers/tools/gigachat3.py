"""GigaChat 3: an object behind a token, or behind the header of a message of its own."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls

FORMATS: dict[str, ToolFormat] = {
    "gigachat3": JsonCalls(
        tags=(
            "<|message_sep|>\n\nfunction call<|role_sep|>\n",
            "function call<|role_sep|>\n",
            "<|function_call|>",
        ),
        ends=("<|message_sep|>", "</s>"),
        drops=("<|message_sep|>",),
        needs_special_tokens=True,
    ),
}
