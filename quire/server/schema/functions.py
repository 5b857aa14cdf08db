"""The older form of tools in a chat: `functions`, `function_call`, and messages with either.

They are turned into tools and one call at most; the answer's side is `server.call_output`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from quire.protocol.errors import InvalidRequestError
from quire.server.schema.sampling import kind_of, refuse

if TYPE_CHECKING:
    from quire.server.schema.chat import ChatRequest


def use_tools(request: ChatRequest) -> None:
    """Rewrites the request in place, so that only `tools` are left to be read. Raises InvalidRequestError.

    `functions` stays set: it says that the answer is to be in the older form.
    """
    if request.functions is None:
        if request.function_call not in (None, "none"):
            refuse(
                "function_call",
                "function_call is set, but there are no functions; send functions with it",
            )
        request.messages = _modern(request.messages)
        return
    for name in ("tools", "tool_choice"):
        if getattr(request, name) is not None:
            refuse("functions", f"functions and {name} are both given; send tools and tool_choice")
    functions = request.functions
    if not isinstance(functions, list) or not functions:
        refuse("functions", "functions must be a list with at least one function")
    request.tools = [{"type": "function", "function": one} for one in functions]
    request.tool_choice = _choice(request.function_call)
    request.parallel_tool_calls = False  # the answer has one place for a call
    request.messages = _modern(request.messages)


def _choice(given: Any) -> Any:
    if given is None or given in ("none", "auto"):
        return given
    if isinstance(given, dict) and isinstance(given.get("name"), str):
        return {"type": "function", "function": {"name": given["name"]}}
    said = repr(given[:40]) if isinstance(given, str) else kind_of(given)
    refuse(
        "function_call",
        f'function_call is {said}; it must be "none", "auto" or an object such as {{"name": "..."}}',
    )


def _modern(messages: Any) -> Any:
    """The messages with calls and their results as tools have them; what is no such message stays."""
    if not isinstance(messages, list):
        return messages
    found, number = [], 0
    for message in messages:
        call = message.get("function_call") if isinstance(message, dict) else None
        if isinstance(call, dict):
            number += 1
            others = {name: value for name, value in message.items() if name != "function_call"}
            calls = [{"id": f"call_{number}", "type": "function", "function": call}]
            message = {**others, "tool_calls": calls}
        elif number and isinstance(message, dict) and message.get("role") == "function":
            message = {**message, "role": "tool", "tool_call_id": f"call_{number}"}
        found.append(message)
    return found


@contextlib.contextmanager
def names_of_functions(request: ChatRequest) -> Iterator[None]:
    """Errors about tools are about the older fields, where these were sent."""
    try:
        yield
    except InvalidRequestError as error:
        if request.functions is None or error.param is None:
            raise
        if error.param == "tool_choice":
            raise InvalidRequestError(str(error), param="function_call") from error
        if not error.param.startswith("tools["):
            raise
        text, param = (
            one.replace("tools[", "functions[").replace("].function", "]")
            for one in (str(error), error.param)
        )
        raise InvalidRequestError(text, param=param) from error
