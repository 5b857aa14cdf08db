"""OLMo 3 and Nemotron 3: the prompt opens the reasoning; Nemotron's may leave it out."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "olmo3": ThinkFormat(inside=True),
    "nemotron_v3": ThinkFormat(inside=True, may_skip=True, switches=("enable_thinking",)),
}
