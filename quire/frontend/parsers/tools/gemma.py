"""FunctionGemma and Gemma 4: a name with an object whose keys stand bare."""

from __future__ import annotations

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.literal_calls import ObjectCalls

FORMATS: dict[str, ToolFormat] = {
    "functiongemma": ObjectCalls(
        tags=("<start_function_call>",), ends=("<end_function_call>",), quote="<escape>"
    ),
    "gemma4": ObjectCalls(tags=("<|tool_call>",), ends=("<tool_call|>",), quote='<|"|>'),
}
