"""MiniMax M2 and M3: reasoning between calls too; `append_think` leaves all of it in the content."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "minimax_m2": ThinkFormat(inside=True, again=True),
    "minimax_m2_append_think": ThinkFormat(starts=(), ends=(), inside=True, opening="<think>"),
    "minimax_m3": ThinkFormat(
        starts=("<mm:think>",), ends=("</mm:think>",), inside=True, may_skip=True, again=True
    ),
}
