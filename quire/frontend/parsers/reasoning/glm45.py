"""GLM 4.5 and 4.7, Holo 2, Ling 3, Poolside: reasoning between calls too, unless a variable turns it off."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

_GLM = ThinkFormat(inside=True, may_skip=True, again=True, switches=("thinking", "enable_thinking"))
_ENDED_BY_CALLS = ThinkFormat(
    inside=True,
    may_skip=True,
    again=True,
    switches=("thinking", "enable_thinking"),
    calls_end_it=True,
)

FORMATS: dict[str, ThinkFormat] = {
    "glm45": _GLM,
    "glm4_moe": _GLM,
    "glm47": _ENDED_BY_CALLS,
    "ling3": _ENDED_BY_CALLS,
    "holo2": _GLM,
    "poolside": _GLM,
    "poolside_v1": _GLM,
}
