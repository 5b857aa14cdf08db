"""Hunyuan 3: a section of calls, in each a name, a separator and pairs of keys and values."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.tagged_calls import TaggedCalls

FORMATS: dict[str, ToolFormat] = {
    "hy_v3": TaggedCalls(
        tags=("<tool_calls>", "<tool_call>"),
        starts=("<tool_call>",),
        name_ends=("<tool_sep>",),
        argument=("<arg_key>", "</arg_key>", "<arg_value>"),
        value_ends=("</arg_value>",),
        call_ends=("</tool_call>",),
        ends=("</tool_calls>",),
    ),
}
