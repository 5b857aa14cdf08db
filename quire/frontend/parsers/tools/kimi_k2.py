"""Kimi K2: a section of calls, each an id with JSON behind it."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.headed_calls import HeadedCalls
from quire.frontend.parsers.message import counted_id


def _read_id(header: str) -> tuple[str, str]:
    """`functions.name:0<|tool_call_argument_begin|>`; the whole is the id."""
    call_id, separator, _ = header.partition("<|tool_call_argument_begin|>")
    call_id = call_id.strip()
    name, colon, number = call_id.rpartition(":")
    if not separator or not colon or not number.isdigit():
        return "", ""
    return name.removeprefix("functions."), call_id


FORMATS: dict[str, ToolFormat] = {
    "kimi_k2": HeadedCalls(
        tags=("<|tool_calls_section_begin|>", "<|tool_call_begin|>"),
        starts=("<|tool_call_begin|>",),
        read_header=_read_id,
        call_ends=("<|tool_call_end|>",),
        ends=("<|tool_calls_section_end|>",),
        make_id=counted_id,
    ),
}
