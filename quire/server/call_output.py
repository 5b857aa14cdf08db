"""Calls of tools as a chat answer writes them: whole and in pieces, in today's form and in the older one.

Who reads them out of a model's output is the front; the rest of the answer is `server.chat_output`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quire.protocol.message import CallDelta


def whole_calls(deltas: Sequence[CallDelta], *, old: bool) -> dict[str, Any]:
    """The fields of a message that say its calls; empty where there are none.

    old  as `function_call`, which has room for the first.
    """
    names: dict[int, CallDelta] = {}
    arguments: dict[int, list[str]] = {}
    for delta in deltas:
        names.setdefault(delta.index, delta)
        arguments.setdefault(delta.index, []).append(delta.arguments)
    functions = {
        index: {"name": names[index].name, "arguments": "".join(arguments[index])}
        for index in sorted(names)
    }
    if not functions:
        return {}
    if old:
        return {"function_call": functions[min(functions)]}
    return {
        "tool_calls": [
            {"id": names[index].id, "type": "function", "function": function}
            for index, function in functions.items()
        ]
    }


def new_calls(deltas: Sequence[CallDelta], *, old: bool) -> dict[str, Any]:
    """The fields of a stream's delta that say what is new in calls; empty for nothing."""
    if not deltas:
        return {}
    if not old:
        return {"tool_calls": [_news(one) for one in deltas]}
    found: dict[str, str] = {}
    first = [one for one in deltas if one.index == 0]
    if any(one.name for one in first):
        found["name"] = next(one.name for one in first if one.name)
    found["arguments"] = "".join(one.arguments for one in first)
    return {"function_call": found} if first else {}


def _news(delta: CallDelta) -> dict[str, Any]:
    """An entry of `tool_calls` in a piece of a stream."""
    if not delta.name:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    return {
        "index": delta.index,
        "id": delta.id,
        "type": "function",
        "function": {"name": delta.name, "arguments": delta.arguments},
    }
