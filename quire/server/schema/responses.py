"""The wire form of /v1/responses, with the checks that need no model.

Items become chat messages in `server.responses.items`; tools are `server.responses.tools`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from quire.protocol.errors import NotServedError
from quire.server.errors import HttpError
from quire.server.schema.sampling import kind_of, refuse, short

MAX_METADATA = 16
"""Entries of `metadata`; keys have up to 64 characters, values up to 512."""
_ID = re.compile(r"resp_[\w.-]{1,251}", re.ASCII)
_TEXT_KINDS = ("text", "json_object", "json_schema")


class InputTokensRequest(msgspec.Struct, kw_only=True):
    """What makes the prompt; null fields are left out before."""

    model: str | None = None
    input: Any = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[Any] = []
    tool_choice: Any = None
    parallel_tool_calls: bool = True
    reasoning: dict[str, Any] | None = None
    text: dict[str, Any] | None = None
    truncation: str = "disabled"
    conversation: Any = None
    chat_template_kwargs: dict[str, Any] | None = None
    mm_processor_kwargs: Any = None
    media_io_kwargs: Any = None


class ResponsesRequest(InputTokensRequest, kw_only=True):
    """A request as sent. `user`, the cache's and the service's fields are echoed and change nothing."""

    metadata: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    max_tool_calls: int | None = None
    store: bool = True
    background: bool = False
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    include: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    top_logprobs: int = 0
    logit_bias: dict[str, float] | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    ignore_eos: bool = False
    skip_special_tokens: bool = True
    include_stop_str_in_output: bool = False
    service_tier: str = "auto"
    prompt: Any = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None
    request_id: str | None = None
    session_id: str | None = None
    include_reasoning: bool = True
    enable_response_messages: bool = False
    previous_input_messages: Any = None
    structured_outputs: Any = None
    priority: int = 0
    cache_salt: str | None = None
    vllm_xargs: dict[str, Any] | None = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None


_NOT_SERVED = {
    "prompt": "prompt templates are not kept here; send the text as input and instructions",
    "conversation": "conversations are not kept here; use previous_response_id",
    "mm_processor_kwargs": "images, audio and video are not served; leave mm_processor_kwargs out",
    "media_io_kwargs": "images, audio and video are not served; leave media_io_kwargs out",
    "previous_input_messages": "harmony messages are not read; send the items as input",
    "kv_transfer_params": "moving cache blocks is not served; leave kv_transfer_params out",
    "ec_transfer_params": "moving encoder outputs is not served; leave ec_transfer_params out",
}


def check_input(request: InputTokensRequest) -> None:
    """Refuses what is not served, and a request without input. Raises InvalidRequestError."""
    for name, sentence in _NOT_SERVED.items():
        if getattr(request, name, None):
            raise NotServedError(sentence, param=name)
    if not isinstance(request.input, (str, list)) or not request.input:
        said = "empty" if request.input in ("", []) else kind_of(request.input)
        refuse("input", f"input is {said}; it must be a text or a list of items")
    if request.truncation not in ("disabled", "auto"):
        refuse("truncation", "truncation must be disabled or auto")
    form = (request.text or {}).get("format")
    if form is not None and (not isinstance(form, dict) or form.get("type") not in _TEXT_KINDS):
        refuse("text.format", f"text.format must be an object of type {', '.join(_TEXT_KINDS)}")


def check_responses(request: ResponsesRequest, *, has_store: bool, max_logprobs: int) -> None:
    """The same for a request to answer, with its limits. Raises InvalidRequestError or HttpError."""
    check_input(request)
    if request.background and not (has_store and request.store):
        why = (
            "store is false" if has_store else "the server was started with --responses-store none"
        )
        raise HttpError(
            400,
            f"background needs a stored response, and {why}; leave background out",
            type="invalid_request_error",
            param="background",
        )
    if request.max_output_tokens is not None and request.max_output_tokens < 1:
        given = short(request.max_output_tokens)
        refuse("max_output_tokens", f"max_output_tokens is {given}; it must be at least 1")
    if max_logprobs != -1 and not 0 <= request.top_logprobs <= max_logprobs:
        refuse(
            "top_logprobs",
            f"top_logprobs is {short(request.top_logprobs)}; it must be between 0 and {max_logprobs}",
        )
    if request.structured_outputs is not None and (request.text or {}).get("format"):
        refuse(
            "structured_outputs",
            "structured_outputs and text.format are both given; send one of them",
        )
    if request.request_id is not None and not _ID.fullmatch(request.request_id):
        refuse(
            "request_id",
            "request_id must be resp_ and up to 251 letters, digits, _, - and .",
        )
    _check_metadata(request.metadata or {})


def _check_metadata(metadata: dict[str, Any]) -> None:
    if len(metadata) > MAX_METADATA:
        refuse("metadata", f"metadata has {len(metadata)} entries; the limit is {MAX_METADATA}")
    for name, value in metadata.items():
        if len(name) > 64 or not isinstance(value, str) or len(value) > 512:
            refuse(
                "metadata",
                "metadata must have texts of up to 512 characters under keys of up to 64 characters",
            )
