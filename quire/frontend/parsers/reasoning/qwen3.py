"""Qwen 3 and MiMo: the output opens and closes the reasoning; some templates open it in the prompt."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

_QWEN = ThinkFormat(switches=("enable_thinking",), calls_end_it=True)

FORMATS: dict[str, ThinkFormat] = {"qwen3": _QWEN, "mimo": _QWEN}
