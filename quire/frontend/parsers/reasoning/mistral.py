"""Magistral: reasoning between tokens."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "mistral": ThinkFormat(
        starts=("[THINK]",), ends=("[/THINK]",), again=True, needs_special_tokens=True
    ),
}
