"""Inkling: blocks of a declared kind, one of which is an object that calls a tool."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls
from quire.frontend.parsers.json_text import CallKeys

FORMATS: dict[str, ToolFormat] = {
    "inkling": JsonCalls(
        tags=("<|content_invoke_tool_json|>",),
        ends=("<|end_message|>", "<|content_model_end_sampling|>"),
        drops=(
            "<|message_model|>", "<|content_text|>", "<|content_invoke_tool_text|>",
            "<|content_tool_error|>", "<|end_message|>", "<|content_model_end_sampling|>",
        ),
        keys=CallKeys(arguments=("args", "arguments")),
        needs_special_tokens=True,
    ),
}  # fmt: skip
