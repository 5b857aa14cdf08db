"""Kimi K3: elements opened and closed by tokens, with attributes that name and type the parts."""

from __future__ import annotations

import re

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.tagged_calls import TaggedCalls

_ATTRIBUTE = re.compile(r'([a-z]{1,16})="([^"]{0,256})"')


def _attributes(text: str) -> dict[str, str]:
    return {
        found[1]: found[2].replace("&quot;", '"').replace("&amp;", "&")
        for found in _ATTRIBUTE.finditer(text)
    }


def _read_name(text: str) -> str:
    return _attributes(text).get("tool", "")


def _read_key(text: str) -> tuple[str, str]:
    attributes = _attributes(text)
    is_string = attributes.get("type", "string") == "string"
    return attributes.get("key", ""), "true" if is_string else "false"


FORMATS: dict[str, ToolFormat] = {
    "kimi_k3": TaggedCalls(
        tags=("<|open|>tools<|sep|>",),
        starts=("<|open|>call ",),
        name_ends=("<|sep|>",),
        argument=("<|open|>argument ", "<|sep|>", ""),
        value_ends=("<|close|>argument<|sep|>",),
        call_ends=("<|close|>call<|sep|>",),
        ends=("<|close|>tools<|sep|>",),
        drops=(
            "<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>",
            "<|end_of_msg|>",
        ),
        read_name=_read_name,
        read_key=_read_key,
        needs_special_tokens=True,
    ),
}  # fmt: skip
