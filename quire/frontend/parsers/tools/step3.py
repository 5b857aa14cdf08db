"""Step 3: a section of calls, each an invocation with named parameters."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.tagged_calls import TaggedCalls

FORMATS: dict[str, ToolFormat] = {
    "step3": TaggedCalls(
        tags=("<｜tool_calls_begin｜>",),
        starts=("<steptml:invoke name=",),
        name_ends=(">",),
        argument=("<steptml:parameter name=", ">", ""),
        value_ends=("</steptml:parameter>",),
        call_ends=("</steptml:invoke>",),
        ends=("<｜tool_calls_end｜>",),
        fillers=("<｜tool_call_begin｜>function<｜tool_sep｜>", "<｜tool_call_end｜>"),
        needs_special_tokens=True,
    ),
}
