"""MiniCPM 5: functions with named parameters, without a tag around them."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.tagged_calls import TaggedCalls

FORMATS: dict[str, ToolFormat] = {
    "minicpm5": TaggedCalls(
        tags=("<function name=",),
        starts=("<function name=",),
        name_ends=(">",),
        argument=("<param name=", ">", ""),
        value_ends=("</param>",),
        call_ends=("</function>",),
        needs_special_tokens=True,
    ),
}
