"""Seed-OSS: functions and parameters between tags of its own family."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.tagged_calls import TaggedCalls

FORMATS: dict[str, ToolFormat] = {
    "seed_oss": TaggedCalls(
        tags=("<seed:tool_call>",),
        starts=("<function=",),
        name_ends=(">",),
        argument=("<parameter=", ">", ""),
        value_ends=("</parameter>",),
        call_ends=("</function>",),
        ends=("</seed:tool_call>",),
        strips=True,
    ),
}
