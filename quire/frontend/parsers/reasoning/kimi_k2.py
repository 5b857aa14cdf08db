"""Kimi K2: reasoning that a section of calls ends too."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "kimi_k2": ThinkFormat(
        inside=True,
        may_skip=True,
        again=True,
        switches=("thinking", "enable_thinking"),
        calls_end_it=True,
    ),
}
