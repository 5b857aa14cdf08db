"""gpt-oss: harmony, whose analysis is the reasoning."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat
from quire.frontend.parsers.harmony import Harmony

FORMATS: dict[str, ThinkFormat] = {
    "openai_gptoss": ThinkFormat(
        starts=(), ends=(), again=True, needs_special_tokens=True, whole=Harmony(calls=False)
    ),
}
