"""From the fields of a chat request to sampling params and the job for the engine.

The fields are `server.schema.chat`; ranges are checked where SamplingParams is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.server.completion_params import common_fields
from quire.server.schema.chat import ChatRequest


def wanted_tokens(request: ChatRequest) -> int | None:
    """What the client asked for; None leaves the whole rest of the context."""
    given = request.max_completion_tokens
    return request.max_tokens if given is None else given


def sampling_params(request: ChatRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """What the engine is asked for. Raises InvalidRequestError.

    defaults  fields that the model's generation config sets; its max_tokens caps every request.
    """
    wanted, cap = wanted_tokens(request), defaults.get("max_tokens")
    limits = [one for one in (wanted, cap) if one is not None]
    reports = request.logprobs and request.logprob_token_ids is None  # else those ids and no others
    return SamplingParams.from_optional(
        **common_fields(request, defaults),
        n=request.n,
        max_tokens=min(limits) if limits else None,
        logprobs=(request.top_logprobs or 0) if reports else None,
        prompt_logprobs=request.prompt_logprobs,
        output_kind=RequestOutputKind.DELTA,
    )
