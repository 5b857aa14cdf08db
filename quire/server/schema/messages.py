"""The wire form of /v1/messages and /v1/messages/count_tokens, with the checks that need no model.

Content blocks become chat messages in `server.messages.convert`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quire.protocol.errors import NotServedError
from quire.server.errors import HttpError
from quire.server.schema.sampling import kind_of, refuse, short


class CountTokensRequest(msgspec.Struct, kw_only=True):
    """What makes the prompt; null fields are left out before."""

    model: str | None = None
    messages: Any = None
    system: Any = None
    tools: Any = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class MessagesRequest(CountTokensRequest, kw_only=True):
    """A request as sent. `metadata`, `service_tier` and `betas` change nothing here."""

    max_tokens: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool = False
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    priority: int = 0
    cache_salt: str | None = None
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    betas: list[str] | None = None
    mcp_servers: Any = None
    container: Any = None
    thread: Any = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None


_NOT_SERVED = {
    "mcp_servers": "servers of tools are not called from here; leave mcp_servers out and pass tools",
    "container": "there are no containers to run code in; leave container out",
    "kv_transfer_params": "moving cache blocks is not served; leave kv_transfer_params out",
    "ec_transfer_params": "moving encoder outputs is not served; leave ec_transfer_params out",
}


def check_count(request: CountTokensRequest) -> None:
    """Refuses a request without a model or messages. Raises InvalidRequestError."""
    if not request.model:
        refuse("model", "model is missing or empty; send a name of /v1/models")
    if not isinstance(request.messages, list) or not request.messages:
        refuse(
            "messages",
            f"messages is {kind_of(request.messages)}; it must be a list with at least one message",
        )


def check_messages(request: MessagesRequest) -> None:
    """The same for a request to answer; and its limits. Raises InvalidRequestError."""
    check_count(request)
    for name, sentence in _NOT_SERVED.items():
        if getattr(request, name):
            raise NotServedError(sentence, param=name)
    if request.thread:
        # The details make the official client send the whole conversation again, without a thread.
        raise HttpError(
            400,
            "conversations are not kept here; send all messages, and leave thread out",
            type="invalid_request_error",
            param="thread",
            details={"error_code": "thread_unsupported_request", "unsupported": ["thread"]},
        )
    if request.max_tokens is None:
        refuse("max_tokens", "max_tokens is missing; send the most tokens to answer with")
    if request.max_tokens < 1:
        refuse("max_tokens", f"max_tokens is {short(request.max_tokens)}; it must be at least 1")
    if any(not one for one in request.stop_sequences or ()):
        refuse("stop_sequences", "stop_sequences has an empty text; leave it out")
