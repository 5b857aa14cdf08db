"""Gemma 4: a channel of thought."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "gemma4": ThinkFormat(
        starts=("<|channel>thought\n", "<|channel>thought"),
        ends=("<channel|>",),
        switches=("enable_thinking",),
        thinks=True,
        again=True,
        needs_special_tokens=True,
    ),
}
