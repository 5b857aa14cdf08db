"""What a request body says about the form of its answer, as one constraint or none.

Whether a schema or grammar can be used is checked with the model, in `frontend.structured`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quire.protocol.errors import InvalidRequestError
from quire.protocol.options import StructuredOutputsParams
from quire.server.schema.sampling import SamplingFields, kind_of, refuse

_OLD_NAMES = {
    "guided_json": "json",
    "guided_json_object": "json_object",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "guided_whitespace_pattern": "whitespace_pattern",
    "guided_decoding_backend": "backend",
}


def constraint_in(request: SamplingFields) -> StructuredOutputsParams | None:
    """The constraint of a request: response_format, structured_outputs, or the old guided_* names.

    Raises InvalidRequestError naming the field that is wrong.
    """
    old = {
        new: getattr(request, name)
        for name, new in _OLD_NAMES.items()
        if getattr(request, name) is not None
    }
    given = request.structured_outputs
    if old and given is not None:
        refuse(
            "structured_outputs", "guided_* fields are the old form of structured_outputs; give one"
        )
    if old and not set(old) - {"backend", "whitespace_pattern"}:
        old = {}  # options without a constraint ask for nothing
    if old:
        name = next(name for name, new in _OLD_NAMES.items() if new in old)
        given = _read(old, name)
    return constraint_of(request.response_format, given)


def constraint_of(
    response_format: dict[str, Any] | None, structured_outputs: Any
) -> StructuredOutputsParams | None:
    """The constraint that a response_format object or a structured_outputs value asks for.

    structured_outputs  as sent, or as StructuredOutputsParams. Raises InvalidRequestError.
    """
    formatted = None if response_format is None else _of_format(response_format)
    if structured_outputs is None:
        return formatted
    if formatted is not None:
        refuse("response_format", "give either response_format or structured_outputs, not both")
    if isinstance(structured_outputs, StructuredOutputsParams):
        return structured_outputs
    if not isinstance(structured_outputs, dict):
        refuse(
            "structured_outputs",
            f"structured_outputs is {kind_of(structured_outputs)}; it must be an object",
        )
    return _read(structured_outputs, "structured_outputs")


def _read(fields: dict[str, Any], name: str) -> StructuredOutputsParams:
    known = [one for one in StructuredOutputsParams.__struct_fields__ if one != "origin"]
    unknown = [key for key in fields if key not in known]
    if unknown:
        refuse(
            name, f"{name} has the unknown field {unknown[0][:40]!r}; known are {', '.join(known)}"
        )
    tag = fields.get("structural_tag")
    if isinstance(tag, dict):
        fields = fields | {"structural_tag": msgspec.json.encode(tag).decode()}
    try:
        given = {key: value for key, value in fields.items() if value is not None}
        return StructuredOutputsParams(**given, origin=name)
    except InvalidRequestError as error:
        raise InvalidRequestError(str(error), param=name) from None


def _of_format(value: dict[str, Any]) -> StructuredOutputsParams | None:
    """Raises InvalidRequestError for an object that is no response format."""
    kind = value.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return StructuredOutputsParams(json_object=True, origin="response_format")
    if kind == "json_schema":
        return _of_schema(value.get("json_schema"))
    if kind == "structural_tag":
        return _read({"structural_tag": value}, "response_format")
    shown = f"{kind[:32]!r}" if isinstance(kind, str) else kind_of(kind)
    refuse(
        "response_format",
        f"response_format.type is {shown}; it must be text, json_object, json_schema or structural_tag",
    )


def _of_schema(described: Any) -> StructuredOutputsParams:
    if not isinstance(described, dict):
        refuse(
            "response_format",
            f"response_format.json_schema is {kind_of(described)}; it must be an object with a schema",
        )
    schema = described.get("schema")
    if schema is True or schema == {}:
        schema = "true"  # any JSON value
    if not isinstance(schema, (dict, str)):
        refuse(
            "response_format",
            f"response_format.json_schema.schema is {kind_of(schema)}; it must be an object",
        )
    return _read({"json": schema}, "response_format")
