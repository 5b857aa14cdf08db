"""InternLM 2: one object between tokens that call a plug-in."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls

FORMATS: dict[str, ToolFormat] = {
    "internlm": JsonCalls(
        tags=("<|action_start|><|plugin|>", "<|action_start|> <|plugin|>"),
        ends=("<|action_end|>",),
        needs_special_tokens=True,
    ),
}
