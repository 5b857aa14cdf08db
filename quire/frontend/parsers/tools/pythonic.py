"""Calls in a list of Python: Llama 3.2 and 4, ToolACE, LFM2; OLMo 3 puts one on each line."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.literal_calls import PythonCalls

FORMATS: dict[str, ToolFormat] = {
    "pythonic": PythonCalls(openings="["),
    "llama4_pythonic": PythonCalls(
        tags=("<|python_start|>",),
        ends=("<|python_end|>",),
        openings="[",
        needs_special_tokens=True,
    ),
    "lfm2": PythonCalls(
        tags=("<|tool_call_start|>",), ends=("<|tool_call_end|>",), needs_special_tokens=True
    ),
    "olmo3": PythonCalls(tags=("<function_calls>",), ends=("</function_calls>",), bare=True),
}
