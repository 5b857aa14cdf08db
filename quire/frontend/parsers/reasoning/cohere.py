"""Cohere Command: tokens around the thinking and around the response."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

_COMMAND = ThinkFormat(
    starts=("<|START_THINKING|>",),
    ends=("<|END_THINKING|>",),
    again=True,
    calls_end_it=True,
    drops=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    needs_special_tokens=True,
)

FORMATS: dict[str, ThinkFormat] = {
    "cohere": _COMMAND,
    "cohere_command3": _COMMAND,
    "cohere_command4": _COMMAND,
}
