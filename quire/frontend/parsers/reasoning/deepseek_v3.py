"""DeepSeek V3.1 and later: as R1 where a template variable asks for it, else no reasoning at all."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

_V3 = ThinkFormat(
    inside=True, may_skip=True, switches=("thinking", "enable_thinking"), thinks=False
)

FORMATS: dict[str, ThinkFormat] = {
    "deepseek_v3": _V3,
    "deepseek_v31": _V3,
    "deepseek_v4": _V3,
}
