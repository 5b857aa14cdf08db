"""Hunyuan: tags around the reasoning, and with A13B around the answer."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "hunyuan_a13b": ThinkFormat(
        starts=("<think>\n", "<think>"),
        ends=("\n</think>", "</think>"),
        drops=("\n<answer>\n", "<answer>\n", "<answer>", "\n</answer>", "</answer>"),
    ),
    "hy_v3": ThinkFormat(calls_end_it=True),
}
