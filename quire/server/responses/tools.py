"""Tools of /v1/responses as functions of a chat, and which of them a client calls itself.

Checks of functions are `server.schema.tools`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from quire.config.schema import ParserConfig
from quire.protocol.errors import InvalidRequestError
from quire.server.responses.remote import RemoteTool
from quire.server.schema.sampling import kind_of, refuse
from quire.server.schema.tools import check_tools, narrowed, read_choice

_HOSTED = frozenset(
    {
        "web_search", "web_search_2025_08_26", "web_search_preview", "web_search_preview_2025_03_11",
        "file_search", "code_interpreter", "image_generation", "computer", "computer_use_preview",
        "local_shell", "shell", "apply_patch", "tool_search", "namespace", "programmatic_tool_calling",
    }
)  # fmt: skip
"""Tools that OpenAI runs or defines; the model here is not told of them."""
_INPUT = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What the model is told of, and how it is to choose.

    functions  in a chat's form; None for none.
    custom     names of tools that take free text: functions of one argument, `input`.
    remote     tools of MCP servers by their names, which this server calls.
    ignored    places of tools that OpenAI hosts, as `tools.2`.
    """

    functions: list[dict[str, Any]] | None
    choice: str
    named: str | None
    custom: frozenset[str] = frozenset()
    remote: Mapping[str, RemoteTool] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


def read_tools(tools: list[Any], choice: Any, remote: Mapping[int, list[RemoteTool]]) -> Tools:
    """Raises InvalidRequestError with the place.

    remote  what the entries of type mcp stand for, by place.
    """
    called: dict[str, RemoteTool] = {}
    functions: list[dict[str, Any]] = []
    custom, ignored, places = set(), [], []
    for place, tool in enumerate(tools):
        path = f"tools[{place}]"
        kind = tool.get("type") if isinstance(tool, dict) else None
        if place in remote:
            functions += [one.function() for one in remote[place]]
            places += [place] * len(remote[place])
            called |= {one.name: one for one in remote[place]}
            continue
        if isinstance(kind, str) and kind in _HOSTED:
            ignored.append(f"tools.{place}")
            continue
        if kind not in ("function", "custom"):
            said = repr(kind[:64]) if isinstance(kind, str) else kind_of(kind)
            refuse(path, f"{path}.type is {said}; it must be function, custom or mcp")
        functions.append(_function(tool))
        places.append(place)
        if kind == "custom":
            custom.add(str(tool.get("name")))
    with _places(places):
        if functions:
            check_tools(functions)
        functions, plain = narrowed(functions, _choice(choice))
        chosen, named = read_choice(plain, functions or None)
    return Tools(
        functions=functions or None,
        choice=chosen,
        named=named,
        custom=frozenset(custom),
        remote=called,
        ignored=ignored,
    )


def after_call(tools: Tools, parsers: ParserConfig) -> Tools:
    """The same once a demanded tool was called: the model chooses, where its choice can be read."""
    able = parsers.enable_auto_tool_choice and parsers.tool_call_parser
    choice = "none" if tools.choice == "none" or not able else "auto"
    return replace(tools, choice=choice, named=None)


def _function(tool: dict[str, Any]) -> dict[str, Any]:
    names = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in names if tool.get(name) is not None}
    if tool["type"] == "custom":
        function["parameters"] = _INPUT
    return {"type": "function", "function": function}


def _choice(choice: Any) -> Any:
    """The choice as a chat has it."""
    if choice == "auto":
        return None  # which is auto where there are tools
    if not isinstance(choice, dict):
        return choice
    if choice.get("type") == "allowed_tools":
        listed = choice.get("tools")
        if isinstance(listed, list):
            listed = [_named(one) for one in listed]
        return {
            "type": "allowed_tools",
            "allowed_tools": {"mode": choice.get("mode"), "tools": listed},
        }
    if choice.get("type") in ("function", "custom"):
        return _named(choice)
    return choice


def _named(given: Any) -> Any:
    """A tool that is named, as a chat names it."""
    if not isinstance(given, dict) or given.get("type") not in ("function", "custom"):
        return given
    return {"type": "function", "function": {"name": given.get("name")}}


@contextlib.contextmanager
def _places(places: list[int]) -> Iterator[None]:
    """Errors about functions name the tool as it was sent."""
    try:
        yield
    except InvalidRequestError as error:
        message, param = str(error), error.param
        for place, sent in reversed(list(enumerate(places))):
            message = message.replace(f"tools[{place}]", f"tools[{sent}]")
            param = param.replace(f"tools[{place}]", f"tools[{sent}]") if param else param
        message = message.replace("].function", "]")
        raise InvalidRequestError(
            message, param=param.replace("].function", "]") if param else None
        ) from None
