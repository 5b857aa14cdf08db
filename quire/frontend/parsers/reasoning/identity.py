"""No reasoning: everything is content."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {"identity": ThinkFormat(starts=(), ends=(), thinks=False)}
