"""DeepSeek R1 and models that always reason like it: the prompt opens the reasoning, the output closes it."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

_ALWAYS = ThinkFormat(inside=True)

FORMATS: dict[str, ThinkFormat] = {
    "deepseek_r1": _ALWAYS,
    "step3": _ALWAYS,
    "step3p5": _ALWAYS,
}
