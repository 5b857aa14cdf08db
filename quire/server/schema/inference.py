"""The wire form of token ids in and out: /inference/v1/generate, and what the render routes make for it.

Sampling parameters travel under the names of `protocol.params.SamplingParams`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from quire.protocol.errors import InvalidRequestError, NotServedError
from quire.protocol.params import (
    RepetitionDetectionParams,
    RequestOutputKind,
    SamplingParams,
)
from quire.server.schema.common import StreamOptions
from quire.server.schema.constraints import constraint_of
from quire.server.schema.sampling import check_choices, kind_of, refuse, short

_NOT_SERVED = {
    "features": "images, audio and video are not served; leave features out",
    "kv_transfer_params": "moving cache blocks is not served; leave kv_transfer_params out",
    "ec_transfer_params": "moving encoder outputs is not served; leave ec_transfer_params out",
}
_INNER = frozenset({"output_kind", "bad_words_ids", "skip_clone", "type"})
"""Fields of SamplingParams that a client cannot set."""


class GenerateRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A request as sent; `token_ids` and `sampling_params` are checked by the functions below."""

    INNER: ClassVar[dict[str, type[msgspec.Struct]]] = {"stream_options": StreamOptions}

    request_id: str | None = None
    model: str | None = None
    token_ids: Any = None
    sampling_params: Any = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    cache_salt: str | None = None
    priority: int = 0
    features: Any = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None


def check_generate(request: GenerateRequest) -> list[int]:
    """The token ids of a request. Raises InvalidRequestError, NotServedError."""
    for name, sentence in _NOT_SERVED.items():
        if getattr(request, name):
            raise NotServedError(sentence, param=name)
    if request.request_id is not None and len(request.request_id) > 256:
        refuse("request_id", "request_id has more than 256 characters; send a shorter one")
    ids = request.token_ids
    if not isinstance(ids, list) or not ids:
        refuse("token_ids", f"token_ids is {kind_of(ids)}; it must be a list of at least one id")
    for place, one in enumerate(ids):
        if type(one) is not int:
            refuse("token_ids", f"token_ids[{place}] is {kind_of(one)}; it must be a token id")
        if not 0 <= one < 2**31:
            refuse("token_ids", f"token_ids[{place}] is {short(one)}; it must not be negative")
    return ids


def params_from_wire(
    given: Any, defaults: Mapping[str, Any], *, max_choices: int
) -> tuple[SamplingParams, list[str]]:
    """The parameters of kind DELTA, and names that no parameter has. Raises InvalidRequestError.

    defaults  fields that the model's generation config sets; its max_tokens caps every request.
    """
    if given is None:
        given = {}
    if not isinstance(given, dict):
        refuse("sampling_params", f"sampling_params is {kind_of(given)}; it must be an object")
    known = {name for name in SamplingParams.__struct_fields__ if name not in _INNER}
    fields = {name: value for name, value in given.items() if name in known}
    check_choices("n", fields.get("n") if type(fields.get("n")) is int else None, max_choices)
    if fields.get("structured_outputs") is not None:
        fields["structured_outputs"] = constraint_of(None, fields["structured_outputs"])
    if fields.get("repetition_detection") is not None:
        try:
            fields["repetition_detection"] = msgspec.convert(
                fields["repetition_detection"], RepetitionDetectionParams
            )
        except msgspec.ValidationError as error:
            raise InvalidRequestError(
                f"repetition_detection: {error}", param="repetition_detection"
            ) from None
    values = {name: value for name, value in defaults.items() if name != "max_tokens"} | fields
    cap, wanted = defaults.get("max_tokens"), values.get("max_tokens", 16)
    values["max_tokens"] = wanted
    if cap is not None and (wanted is None or (type(wanted) is int and wanted > cap)):
        values["max_tokens"] = cap
    try:
        params = SamplingParams.from_optional(**values, output_kind=RequestOutputKind.DELTA)
    except TypeError as error:
        raise InvalidRequestError(f"sampling_params: {error}", param="sampling_params") from None
    return params, [f"sampling_params.{name}" for name in given if name not in known]


def params_to_wire(params: SamplingParams) -> dict[str, Any]:
    """The fields that are not at their defaults."""
    found: dict[str, Any] = msgspec.to_builtins(params, str_keys=True)
    return {name: value for name, value in found.items() if name not in _INNER}
