"""Inkling: blocks of a declared kind, one of which is thinking."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "inkling": ThinkFormat(
        starts=("<|content_thinking|>",),
        ends=("<|end_message|>", "<|content_model_end_sampling|>"),
        again=True,
        calls_end_it=True,
        drops=("<|message_model|>", "<|content_text|>"),
        needs_special_tokens=True,
    ),
}
