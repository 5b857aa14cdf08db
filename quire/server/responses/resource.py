"""The response object of /v1/responses: what was asked, and what came of it.

Its output items are `server.responses.writer`.
"""

from __future__ import annotations

from typing import Any

from quire.protocol.params import SamplingParams
from quire.server.schema.responses import ResponsesRequest

ENDED = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""States that do not change any more."""


def response_head(
    request: ResponsesRequest, params: SamplingParams, *, response_id: str, model: str, created: int
) -> dict[str, Any]:
    """The fields that are known before the answer; those of its outcome are still empty."""
    text = {"format": {"type": "text"}, "verbosity": "medium", **(request.text or {})}
    reasoning = {"effort": None, "summary": None, **(request.reasoning or {})}
    return {
        "id": response_id,
        "object": "response",
        "created_at": created,
        "completed_at": None,
        "status": "queued" if request.background else "in_progress",
        "background": request.background,
        "error": None,
        "incomplete_details": None,
        "instructions": request.instructions,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "metadata": request.metadata or {},
        "model": model,
        "output": [],
        "parallel_tool_calls": request.parallel_tool_calls,
        "previous_response_id": request.previous_response_id,
        "prompt_cache_key": request.prompt_cache_key,
        "reasoning": reasoning,
        "safety_identifier": request.safety_identifier,
        "service_tier": request.service_tier,
        "store": request.store,
        "temperature": params.temperature,
        "text": text,
        "tool_choice": request.tool_choice or "auto",
        "tools": request.tools,
        "top_logprobs": request.top_logprobs,
        "top_p": params.top_p,
        "truncation": request.truncation,
        "usage": None,
        "user": request.user,
    }


def usage_of(
    *, prompts: list[int], cached: list[int], output: int, reasoning: int
) -> dict[str, Any]:
    """Tokens of a response; `prompts` and `cached` have an entry for each turn of the model."""
    return {
        "input_tokens": sum(prompts),
        "input_tokens_details": {
            "cached_tokens": sum(cached),
            "cache_write_tokens": 0,
            "input_tokens_per_turn": prompts,
            "cached_tokens_per_turn": cached,
        },
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning, "tool_output_tokens": 0},
        "total_tokens": sum(prompts) + output,
    }
