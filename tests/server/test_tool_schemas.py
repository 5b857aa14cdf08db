"""What definitions of tools and tool_choice may be, and the schemas made of them."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from quire.protocol.errors import InvalidRequestError
from quire.protocol.message import CallFrame
from quire.protocol.params import StructuredOutputsParams
from quire.server.schema.calls import (
    free_constraint,
    named_constraint,
    named_schema,
    required_constraint,
    required_schema,
)
from quire.server.schema.tools import check_tools, read_choice


def tool(name: str = "f", parameters: Any = None, **more: Any) -> dict[str, Any]:
    function = {"name": name, **more}
    if parameters is not None:
        function["parameters"] = parameters
    return {"type": "function", "function": function}


CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TREE = {
    "type": "object",
    "properties": {"tree": {"$ref": "#/$defs/node"}},
    "required": ["tree"],
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"left": {"$ref": "#/$defs/node"}, "size": {"type": "integer"}},
            "required": ["size"],
        }
    },
}
DEEP: dict[str, Any] = {"type": "object"}
for _ in range(100):
    DEEP = {"type": "object", "properties": {"a": DEEP}}


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ("f", "tools"),
        ({}, "tools"),
        ([], "tools"),
        ([5], "tools[0]"),
        ([tool(f"f{i}") for i in range(129)], "tools"),
        ([tool(""), tool()], "tools[0].function.name"),
        ([tool(), tool()], "tools[1].function.name"),
        ([tool("a b")], "tools[0].function.name"),
        ([tool("x" * 10_000)], "tools[0].function.name"),
        ([tool("名")], "tools[0].function.name"),
        ([tool(description=5)], "tools[0].function.description"),
        ([tool(strict="yes")], "tools[0].function.strict"),
        ([tool(parameters=[])], "tools[0].function.parameters"),
        ([tool(parameters={"type": "something"})], "tools[0].function.parameters"),
        (
            [tool(), tool("g", {"properties": {"a": {"type": ["string", "text"]}}})],
            "tools[1].function.parameters.properties.a",
        ),
        (
            [tool(parameters={"properties": {"a": {"type": "string", "pattern": "(("}}})],
            "tools[0].function.parameters.properties.a",
        ),
        ([tool(parameters={"pattern": "(" * 3000 + ")" * 3000})], "tools[0].function.parameters"),
        ([tool(parameters={"pattern": "a" * 5000})], "tools[0].function.parameters"),
        (
            [tool(parameters={"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}})],
            "tools[0].function.parameters",
        ),
        (
            [tool(parameters={"items": [{"$ref": "http://127.0.0.1/a"}]})],
            "tools[0].function.parameters.items[0]",
        ),
        ([tool(parameters=DEEP)], "tools[0].function.parameters"),
        ([tool(parameters={"description": "a" * 300_000})], "tools[0].function.parameters"),
    ],
)
def test_wrong_tools_are_named(tools: Any, param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        check_tools(tools)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "parameters",
    [
        None,
        {},
        CITY,
        TREE,
        {"type": "object", "properties": {"type": {"type": "string"}, "pattern": {}}},
        {"type": "object", "properties": {"$ref": {"type": "string", "pattern": r"^\p{L}+$"}}},
        {"type": ["object", "null"], "enum": [{"type": "something"}]},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
    ],
)
def test_tools_that_are_right_pass(parameters: Any) -> None:
    assert len(check_tools([tool("get_weather", parameters), tool("g-1.x")])) == 2


def test_what_tool_choice_may_be() -> None:
    tools = [tool(), tool("g")]
    named = {"type": "function", "function": {"name": "g"}}
    assert read_choice(None, None) == read_choice("none", tools) == ("none", None)
    assert read_choice("none", None) == ("none", None)
    assert read_choice(None, tools) == read_choice("auto", tools) == ("auto", None)
    assert read_choice("required", tools) == ("required", None)
    assert read_choice(named, tools) == ("named", "g")
    for wrong in ("any", 5, True, {}, [], {"type": "function"}, {"type": "x", "function": {}}):
        with pytest.raises(InvalidRequestError) as caught:
            read_choice(wrong, tools)
        assert caught.value.param == "tool_choice"
    for without in ("auto", "required", named):
        with pytest.raises(InvalidRequestError):
            read_choice(without, None)


def test_a_list_of_calls_is_held_to_every_tools_schema() -> None:
    tools = [tool("city", CITY), tool("tree", TREE), tool("now")]
    many, one = (required_schema(tools, many=many) for many in (True, False))
    calls = [
        {"name": "city", "parameters": {"city": "Oslo"}},
        {"name": "tree", "parameters": {"tree": {"size": 1, "left": {"size": 2}}}},
        {"name": "now", "parameters": {}},
    ]
    jsonschema.validate(calls, many)
    jsonschema.validate(calls[:1], one)
    for wrong, schema in [
        ([], many),
        (calls[:2], one),
        ([{"name": "city", "parameters": {}}], many),
        ([{"name": "other", "parameters": {}}], many),
        ([{"name": "now", "parameters": {"a": 1}}], many),
        ([{"name": "tree", "parameters": {"tree": {"size": 1, "left": {"size": "2"}}}}], many),
    ]:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_the_schema_of_one_tool() -> None:
    tools = [tool("city", {"$schema": "x", "$id": "y", **CITY}), tool("now", {})]
    assert named_schema(tools, "city") == CITY
    jsonschema.validate({}, named_schema(tools, "now"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"a": 1}, named_schema(tools, "now"))
    assert named_schema([tool("a", {"properties": {"x": {}}})], "a")["type"] == "object"


FRAME = CallFrame(begin='<c>{"name": "{name}", "arguments": ', end="}</c>", trigger="<c>")
STRICT = tool("city", CITY, strict=True)


def form_of(constraint: StructuredOutputsParams | None) -> dict[str, Any]:
    assert constraint is not None and constraint.structural_tag is not None
    found: dict[str, Any] = json.loads(constraint.structural_tag)["format"]
    return found


def test_what_holds_where_a_call_is_demanded() -> None:
    tools = [tool("city", CITY), tool("now")]
    assert named_constraint(tools, "city", None).json == CITY
    assert required_constraint(tools, None, many=False).json == required_schema(tools, many=False)
    named = form_of(named_constraint(tools, "city", FRAME))
    assert named["stop_after_first"] and [one["begin"] for one in named["tags"]] == [
        '<c>{"name": "city", "arguments": '
    ]
    assert named["tags"][0]["content"]["json_schema"] == CITY
    required = form_of(required_constraint(tools, FRAME, many=True))
    assert required["at_least_one"] and not required["stop_after_first"]
    assert len(required["tags"]) == 2 and required["tags"][1]["end"] == "}</c>"
    around = CallFrame(begin="{name}", end="", trigger="<", opening="<all>", closing="</all>")
    whole = form_of(required_constraint(tools, around, many=True))
    assert (whole["begin"], whole["end"]) == ("<all>", "</all>")


def test_what_holds_where_the_model_may_call_or_not() -> None:
    loose, text = tool("now"), StructuredOutputsParams(json=CITY)
    assert free_constraint([loose], FRAME, None, many=True) is None
    assert free_constraint([STRICT], None, None, many=True) is None
    assert free_constraint([STRICT], None, text, many=True) is text
    held = form_of(free_constraint([STRICT, loose], FRAME, None, many=True))
    assert held["type"] == "triggered_tags" and held["triggers"] == ["<c>"]
    assert [one["content"]["json_schema"] for one in held["tags"]] == [CITY, {"type": "object"}]
    either = form_of(free_constraint([loose], FRAME, text, many=True))
    assert either["elements"][0] == {"type": "json_schema", "json_schema": CITY}
    assert either["elements"][1]["at_least_one"]
    for other in (
        StructuredOutputsParams(json="no schema"),
        StructuredOutputsParams(choice=["a"]),
        StructuredOutputsParams(grammar='root ::= "a"'),
    ):
        assert free_constraint([loose], FRAME, other, many=True) is other
