"""ERNIE 4.5: reasoning that the prompt opens, then a frame around what is said."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "ernie45": ThinkFormat(
        inside=True,
        may_skip=True,
        drops=("<response>\n", "<response>", "\n</response>", "</response>"),
    ),
}
