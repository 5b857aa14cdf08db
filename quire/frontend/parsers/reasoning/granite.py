"""Granite 3.2: sentences that announce the reasoning and the response."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "granite": ThinkFormat(
        starts=("Here is my thought process:", "Here's my thought process:"),
        ends=("Here is my response:", "Here's my response:"),
    ),
}
