"""GLM 4.5 and 4.7, Ling 3, Poolside: the name behind a tag, then pairs of keys and values."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.tagged_calls import TaggedCalls

_GLM = TaggedCalls(
    tags=("<tool_call>",),
    starts=(),
    name_ends=("\n",),
    argument=("<arg_key>", "</arg_key>", "<arg_value>"),
    value_ends=("</arg_value>",),
    call_ends=("</tool_call>",),
)

FORMATS: dict[str, ToolFormat] = {
    "glm45": _GLM,
    "glm4_moe": _GLM,
    "glm47": _GLM,
    "ling3": _GLM,
    "poolside": _GLM,
    "poolside_v1": _GLM,
}
