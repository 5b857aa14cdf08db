"""The last check of a request before it is queued: what could never run here is refused.

What a user may ask is checked long before, in `frontend.inputs`; this keeps the loop from harm.
"""

from __future__ import annotations

import time

from quire.engine.request import Request
from quire.engine.scheduler.policy import rank_of
from quire.protocol.errors import InvalidRequestError
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest


def accept(
    source: EngineRequest, *, policy: str, number: int, max_model_len: int, caching: bool
) -> Request:
    """The request in the scheduler's form; `number` counts arrivals.

    Raises InvalidRequestError if it can never come to an end.
    """
    params = source.params
    longest, why = max_model_len - 1, ", so that one token can follow"
    if not isinstance(params, SamplingParams):
        params = SamplingParams(temperature=0.0, max_tokens=1)
        longest, why = max_model_len, ""
    num_prompt = len(source.prompt_token_ids)
    if not 1 <= num_prompt <= longest:
        raise InvalidRequestError(
            f"the prompt has {num_prompt} tokens; this model takes 1 to {longest}{why}",
            param="prompt",
        )
    try:
        request = Request(
            source,
            params,
            rank=rank_of(policy, source.priority),
            number=number,
            max_model_len=max_model_len,
            caching=caching,
            now_s=time.monotonic(),
        )
    except OverflowError:
        raise InvalidRequestError(
            "the prompt has token ids beyond 2147483647; use ids of the model's vocabulary",
            param="prompt",
        ) from None
    num_known = num_prompt + max((len(ids) for ids in source.resume_ids or ()), default=0)
    if num_known >= request.final_len:
        raise InvalidRequestError(
            f"the request ends at {request.final_len} tokens and has {num_known} already; "
            "raise max_tokens",
            param="max_tokens",
        )
    return request
