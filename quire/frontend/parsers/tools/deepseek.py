"""DeepSeek V3 and V3.1: a section of calls, each a header with JSON behind it."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.headed_calls import HeadedCalls

_CALL_END = "<｜tool▁call▁end｜>"
_SEPARATOR = "<｜tool▁sep｜>"


def _read_v3(header: str) -> tuple[str, str]:
    """`function<sep>name`, then a line that opens a code block."""
    kind, separator, rest = header.partition(_SEPARATOR)
    name = rest if separator else kind
    return name.strip().partition("\n")[0].strip(), ""


def _read_v31(header: str) -> tuple[str, str]:
    """`name<sep>`."""
    name, separator, _ = header.partition(_SEPARATOR)
    return name.strip() if separator else "", ""


def _form(*, code_block: bool) -> HeadedCalls:
    return HeadedCalls(
        tags=("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"),
        starts=("<｜tool▁call▁begin｜>",),
        read_header=_read_v3 if code_block else _read_v31,
        call_ends=("```" + _CALL_END, "```\n" + _CALL_END, _CALL_END),
        ends=("<｜tool▁calls▁end｜>",),
    )


FORMATS: dict[str, ToolFormat] = {
    "deepseek_v3": _form(code_block=True),
    "deepseek_v31": _form(code_block=False),
}
