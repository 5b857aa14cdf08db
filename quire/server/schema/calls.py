"""The constraints that make a model's calls of tools valid.

How tools are checked is `schema.tools`; how calls are read is the front's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from quire.protocol.message import CallFrame
from quire.protocol.params import StructuredOutputsParams

Tools = Sequence[dict[str, Any]]

_SPACE = " ?"  # between the parts of JSON: what models write, and no more
_NO_ARGUMENTS: dict[str, Any] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}


def named_constraint(tools: Tools, name: str, frame: CallFrame | None) -> StructuredOutputsParams:
    """The whole answer is one call of the tool `name`; without a frame, its arguments."""
    if frame is None:
        return StructuredOutputsParams(
            json=named_schema(tools, name), whitespace_pattern=_SPACE, origin="tools"
        )
    called = [tool for tool in tools if tool["function"]["name"] == name]
    return _tagged(_calls(called, frame, many=False))


def required_constraint(
    tools: Tools, frame: CallFrame | None, *, many: bool
) -> StructuredOutputsParams:
    """The whole answer is calls, at least one, and one only unless `many`.

    frame  how the model writes calls; None has them written as a JSON array.
    """
    if frame is None:
        schema = required_schema(tools, many=many)
        return StructuredOutputsParams(json=schema, whitespace_pattern=_SPACE, origin="tools")
    return _tagged(_calls(tools, frame, many=many))


def free_constraint(
    tools: Tools,
    frame: CallFrame | None,
    text: StructuredOutputsParams | None,
    *,
    many: bool,
) -> StructuredOutputsParams | None:
    """What holds where the model may call tools or not; None for nothing.

    text  what the answer must be like if it is no call. Without it only tools that are `strict` are
          held to their schema. Where the model's way to write calls has no frame, `text` is all.
    """
    if frame is None:
        return text
    if text is not None:
        form = _form_of(text)
        return (
            text
            if form is None
            else _tagged({"type": "or", "elements": [form, _calls(tools, frame, many=many)]})
        )
    if not any(tool["function"].get("strict") for tool in tools):
        return None
    if frame.text:
        calls = _calls(tools, frame, many=many, strictly=False)
        plain = {"type": "regex", "pattern": frame.text}
        return _tagged({"type": "or", "elements": [plain, calls]})
    if not frame.trigger:
        return None
    if frame.opening:
        tags = [_calls(tools, frame, many=many, strictly=False)]
    else:
        tags = [_tag(tool, frame, strictly=False) for tool in tools]
    return _tagged({"type": "triggered_tags", "triggers": [frame.trigger], "tags": tags})


def _form_of(text: StructuredOutputsParams) -> dict[str, Any] | None:
    """A constraint as a part of a structural tag; None for kinds that have no such part."""
    if text.json is not None:
        try:
            schema = msgspec.json.decode(text.json) if isinstance(text.json, str) else text.json
        except msgspec.DecodeError:
            return None  # what compiles the constraint says what is wrong with it
        return {"type": "json_schema", "json_schema": schema}
    if text.json_object:
        return {"type": "json_schema", "json_schema": {"type": "object"}}
    if text.regex is not None:
        return {"type": "regex", "pattern": text.regex}
    return None


def _calls(tools: Tools, frame: CallFrame, *, many: bool, strictly: bool = True) -> dict[str, Any]:
    """All calls of a message; `strictly` as in `_tag`."""
    calls = {
        "type": "tags_with_separator",
        "tags": [_tag(tool, frame, strictly=strictly) for tool in tools],
        "separator": frame.separator,
        "at_least_one": True,
        "stop_after_first": not many,
    }
    if not frame.opening:
        return calls
    return {"type": "tag", "begin": frame.opening, "content": calls, "end": frame.closing}


def _tag(tool: dict[str, Any], frame: CallFrame, *, strictly: bool) -> dict[str, Any]:
    """One call; `strictly` holds it to its schema whether it asks for that or not."""
    held = strictly or tool["function"].get("strict")
    content: dict[str, Any] = {
        "type": "json_schema",
        "json_schema": _parameters(tool) if held else {"type": "object"},
    }
    if frame.counted:
        number = {"type": "regex", "pattern": "[0-9]{1,3}"}
        behind = {"type": "const_string", "value": frame.counted}
        content = {"type": "sequence", "elements": [number, behind, content]}
    begin = frame.begin.replace("{name}", tool["function"]["name"])
    return {"type": "tag", "begin": begin, "content": content, "end": frame.end}


def _tagged(form: dict[str, Any]) -> StructuredOutputsParams:
    text = msgspec.json.encode({"type": "structural_tag", "format": form}).decode()
    return StructuredOutputsParams(structural_tag=text, whitespace_pattern=_SPACE, origin="tools")


def named_schema(tools: Tools, name: str) -> dict[str, Any]:
    """The schema of the arguments of the tool `name`."""
    for tool in tools:
        if tool["function"]["name"] == name:
            return _parameters(tool)
    raise KeyError(name)


def required_schema(tools: Tools, *, many: bool) -> dict[str, Any]:
    """The schema of a list of calls, `{"name": ..., "parameters": {...}}` each; one call unless `many`.

    Each tool's own schema stands whole under `$defs`, and its references are turned there.
    """
    calls, parts = [], {}
    for place, tool in enumerate(tools):
        place_name = f"tool_{place}"
        parts[place_name] = _moved(_parameters(tool), f"#/$defs/{place_name}")
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": tool["function"]["name"]},
                    "parameters": {"$ref": f"#/$defs/{place_name}"},
                },
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    found: dict[str, Any] = {"type": "array", "minItems": 1, "items": {"anyOf": calls}}
    if not many:
        found["maxItems"] = 1
    return {**found, "$defs": parts}


def _parameters(tool: dict[str, Any]) -> dict[str, Any]:
    """The schema of a tool's arguments, which are an object whatever it says."""
    given = tool["function"].get("parameters") or _NO_ARGUMENTS
    if not given.get("properties") and set(given) <= {"type", "properties"}:
        given = _NO_ARGUMENTS
    found = {name: value for name, value in given.items() if name not in ("$schema", "$id")}
    if not {"type", "$ref", "anyOf", "oneOf", "allOf"} & set(found):
        found["type"] = "object"
    return found


def _moved(schema: Any, place: str) -> Any:
    """The schema with its references to its own root turned to `place`."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: _moved(value, place) for name, value in schema.items()}
    reference = schema.get("$ref")
    if isinstance(reference, str) and reference.startswith("#"):
        found["$ref"] = place + reference[1:]
    return found
