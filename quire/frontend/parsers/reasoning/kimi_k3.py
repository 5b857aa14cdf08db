"""Kimi K3: an element for the reasoning, one for what is said."""

from __future__ import annotations

from quire.frontend.parsers.formats import ThinkFormat

FORMATS: dict[str, ThinkFormat] = {
    "kimi_k3": ThinkFormat(
        starts=("<|open|>think<|sep|>",),
        ends=("<|close|>think<|sep|>", "<|open|>response<|sep|>"),
        inside=True,
        may_skip=True,
        switches=("thinking", "enable_thinking"),
        calls_end_it=True,
        drops=(
            "<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>",
            "<|end_of_msg|>",
        ),
        needs_special_tokens=True,
    ),
}  # fmt: skip
