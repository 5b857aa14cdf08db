"""Qwen3 Coder and its like: a tag for the function, one for each parameter, plain text inside."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.tagged_calls import TaggedCalls

_QWEN = TaggedCalls(
    tags=("<tool_call>", "<function="),
    starts=("<function=",),
    name_ends=(">",),
    argument=("<parameter=", ">", ""),
    value_ends=("</parameter>", "\n<parameter=", "\n</function>"),
    call_ends=("</function>",),
    ends=("</tool_call>",),
    fillers=("<tool_call>",),
    strips=True,
)

FORMATS: dict[str, ToolFormat] = {
    "qwen3_coder": _QWEN,
    "qwen3_xml": _QWEN,
    "step3p5": _QWEN,
    "mimo": _QWEN,
    "nemotron_v3": _QWEN,
}
