"""Tools of a request: checks of their definitions, and of which one is to be called.

The schemas that calls have to fit are `schema.calls`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from quire.server.schema.sampling import kind_of, refuse

MAX_TOOLS = 128
"""Tools of one request."""
MAX_SCHEMA_BYTES = 256 << 10
"""JSON bytes of one tool's parameters."""
MAX_SCHEMA_DEPTH = 64
"""Objects and lists inside each other in a tool's parameters."""
MAX_PATTERN = 4096
"""Characters of a `pattern` in a tool's parameters."""

_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)
_TYPES = frozenset({"object", "array", "string", "number", "integer", "boolean", "null"})


def check_tools(tools: Any) -> list[dict[str, Any]]:
    """The tools, if each is a function with a name of its own and a schema. Raises InvalidRequestError."""
    if not isinstance(tools, list) or not tools:
        refuse("tools", f"tools is {_said(tools)}; it must be a list with at least one entry")
    if len(tools) > MAX_TOOLS:
        refuse("tools", f"tools has {len(tools)} entries; the limit is {MAX_TOOLS}")
    names = set()
    for place, tool in enumerate(tools):
        name = _check_tool(tool, f"tools[{place}]")
        if name in names:
            refuse(
                f"tools[{place}].function.name",
                f"tools[{place}] has the name {name!r}, as another tool has",
            )
        names.add(name)
    return tools


def _said(value: Any) -> str:
    return "an empty list" if value == [] else kind_of(value)


def _check_tool(tool: Any, path: str) -> str:
    function = tool.get("function") if isinstance(tool, dict) else None
    if not isinstance(function, dict) or tool.get("type") != "function":
        refuse(path, f"{path} must be an object with type function, and the function")
    name = function.get("name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        refuse(
            f"{path}.function.name", f"{path} needs a name of 1 to 64 letters, digits, _, - or ."
        )
    if not isinstance(function.get("description", ""), str):
        refuse(f"{path}.function.description", f"{path} has a description that is no string")
    if not isinstance(function.get("strict", False), bool):
        refuse(f"{path}.function.strict", f"{path} has strict that is not true or false")
    parameters = function.get("parameters", {})
    where = f"{path}.function.parameters"
    if not isinstance(parameters, dict):
        refuse(where, f"{path} has parameters that are not an object")
    _check_schema(parameters, where)
    return name


def _check_schema(schema: dict[str, Any], path: str) -> None:
    """Refuses what no reader of JSON schemas takes: unknown types, broken patterns, distant references."""
    left: list[tuple[Any, str, int]] = [(schema, path, 0)]
    while left:
        value, where, depth = left.pop()
        if depth > MAX_SCHEMA_DEPTH:
            refuse(path, f"{path} is nested deeper than {MAX_SCHEMA_DEPTH}; send a flatter schema")
        if depth == 0 or isinstance(value, dict):
            _check_keywords(schema, value, where)
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        left += [
            (one, f"{where}.{name}" if isinstance(name, str) else f"{where}[{name}]", depth + 1)
            for name, one in inner
            if isinstance(one, (dict, list))
            and name not in ("enum", "const", "default", "examples")
        ]
    size = len(msgspec.json.encode(schema))
    if size > MAX_SCHEMA_BYTES:
        refuse(path, f"{path} has {size} bytes; the limit is {MAX_SCHEMA_BYTES}")


def _check_keywords(root: dict[str, Any], schema: dict[str, Any], path: str) -> None:
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    is_name = path.endswith(".properties")  # then keys are names of the user's, not keywords
    if is_name:
        return
    if kind is not None and not all(isinstance(one, str) and one in _TYPES for one in kinds):
        refuse(
            path,
            f"{path} has a type that JSON schema does not know: {str(kind)[:40]!r}; use one of "
            f"{', '.join(sorted(_TYPES))}",
        )
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        _check_pattern(pattern, path)
    reference = schema.get("$ref")
    if isinstance(reference, str):
        _check_reference(root, reference, path)


def _check_pattern(pattern: str, path: str) -> None:
    if len(pattern) > MAX_PATTERN:
        refuse(
            path, f"{path} has a pattern of {len(pattern)} characters; the limit is {MAX_PATTERN}"
        )
    depth = most = 0
    for character in pattern:
        depth += (character == "(") - (character == ")")
        most = max(most, depth)
    try:
        if most > 50:
            raise re.error("too many groups inside each other")
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        if "unknown extension" in str(error) or "bad escape" in str(error):
            return  # written for another dialect; what reads the schema judges it
        refuse(path, f"{path} has a pattern that is no regular expression: {str(error)[:100]}")


def _check_reference(root: dict[str, Any], reference: str, path: str) -> None:
    if not reference.startswith("#"):
        refuse(
            path,
            f"{path} refers to {reference[:80]!r}; only places in the same schema, such as "
            '"#/$defs/name", can be referred to',
        )
    seen = set()
    while reference not in seen:
        seen.add(reference)
        found = _pointed(root, reference)
        further = found.get("$ref") if isinstance(found, dict) else None
        if not isinstance(further, str):
            return
        reference = further
    refuse(path, f"{path} refers to {reference[:80]!r}, which refers to itself and says nothing")


def _pointed(root: Any, reference: str) -> Any:
    found = root
    for part in reference[1:].split("/")[1:]:
        if not isinstance(found, dict):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found


def narrowed(tools: Any, choice: Any) -> tuple[Any, Any]:
    """The tools and the choice, where a choice of type allowed_tools leaves some of the tools and a mode.

    Any other choice is returned as it is. Raises InvalidRequestError for one that is wrong.
    """
    if not isinstance(choice, dict) or choice.get("type") != "allowed_tools":
        return tools, choice
    given = choice.get("allowed_tools")
    mode = given.get("mode") if isinstance(given, dict) else None
    if not isinstance(given, dict) or mode not in ("auto", "required"):
        refuse(
            "tool_choice",
            'tool_choice of type allowed_tools must have allowed_tools with the mode "auto" or "required" and '
            "a list of tools",
        )
    if not tools:
        refuse("tool_choice", "tool_choice is set, but there are no tools; send tools with it")
    allowed = given.get("tools")
    names = [one.get("function", {}).get("name") for one in allowed or () if _is_named(one)]
    if not isinstance(allowed, list) or not names or len(names) != len(allowed):
        refuse("tool_choice", "tool_choice.allowed_tools.tools must be a list of functions by name")
    known = {tool["function"]["name"] for tool in tools}
    for name in names:
        if name not in known:
            refuse(
                "tool_choice",
                f"tool_choice allows the function {name[:64]!r}, which is not among the tools: "
                f"{', '.join(sorted(known))[:200]}",
            )
    return [tool for tool in tools if tool["function"]["name"] in names], mode


def _is_named(tool: Any) -> bool:
    function = tool.get("function") if isinstance(tool, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def read_choice(choice: Any, tools: list[dict[str, Any]] | None) -> tuple[str, str | None]:
    """`tool_choice` as ("none" | "auto" | "required" | "named", name of the tool or None).

    Raises InvalidRequestError for a form that is not known, without tools, or for an unknown name.
    """
    if choice is None:
        return ("auto" if tools else "none"), None
    if choice == "none":
        return "none", None
    named = None
    if isinstance(choice, dict):
        function = choice.get("function")
        named = function.get("name") if isinstance(function, dict) else None
        if choice.get("type") != "function" or not isinstance(named, str):
            refuse(
                "tool_choice",
                'tool_choice must be "none", "auto", "required", or an object such as '
                '{"type": "function", "function": {"name": "..."}}',
            )
    elif choice not in ("auto", "required"):
        said = repr(choice[:40]) if isinstance(choice, str) else kind_of(choice)
        refuse(
            "tool_choice",
            f'tool_choice is {said}; it must be "none", "auto", "required" or an object that names a '
            "function",
        )
    if not tools:
        refuse("tool_choice", "tool_choice is set, but there are no tools; send tools with it")
    if named is None:
        return str(choice), None
    names = [tool["function"]["name"] for tool in tools]
    if named not in names:
        refuse(
            "tool_choice",
            f"tool_choice names the function {named[:64]!r}, which is not among the tools: "
            f"{', '.join(names)[:200]}",
        )
    return "named", named
