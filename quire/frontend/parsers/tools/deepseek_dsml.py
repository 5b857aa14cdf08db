"""DeepSeek V3.2 and V4: invocations whose parameters say whether they are strings or JSON."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.tagged_calls import TaggedCalls, with_string_mark

_MARK = "｜DSML｜"


def _form(section: str) -> TaggedCalls:
    return TaggedCalls(
        tags=(f"<{_MARK}{section}>",),
        starts=(f"<{_MARK}invoke name=",),
        name_ends=(">",),
        argument=(f"<{_MARK}parameter name=", ">", ""),
        value_ends=(f"</{_MARK}parameter>",),
        call_ends=(f"</{_MARK}invoke>",),
        ends=(f"</{_MARK}{section}>",),
        read_key=with_string_mark,
        needs_special_tokens=True,
    )


FORMATS: dict[str, ToolFormat] = {
    "deepseek_v32": _form("function_calls"),
    "deepseek_v4": _form("tool_calls"),
}
