"""MiniMax M2: invocations with named parameters."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.tagged_calls import TaggedCalls

FORMATS: dict[str, ToolFormat] = {
    "minimax_m2": TaggedCalls(
        tags=("<minimax:tool_call>",),
        starts=("<invoke name=",),
        name_ends=(">",),
        argument=("<parameter name=", ">", ""),
        value_ends=("</parameter>",),
        call_ends=("</invoke>",),
        ends=("</minimax:tool_call>",),
    ),
}
