"""From a request of /v1/responses to a turn of conversation.

Items are converted in `server.responses.items`; the turn is run by `server.turns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from quire.protocol.chat import ChatOptions
from quire.protocol.params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from quire.server.face import Face
from quire.server.responses.items import chat_messages
from quire.server.responses.tools import Tools
from quire.server.schema.constraints import constraint_of
from quire.server.schema.responses import InputTokensRequest, ResponsesRequest
from quire.server.schema.sampling import refuse
from quire.server.state import ServerState
from quire.server.turns import Turn

_FROM_MODEL = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
_AS_SENT = (
    "temperature", "top_p", "top_k", "repetition_penalty", "presence_penalty", "frequency_penalty",
    "seed", "stop", "ignore_eos", "skip_special_tokens", "include_stop_str_in_output", "logit_bias",
)  # fmt: skip
LOGPROBS = "message.output_text.logprobs"
"""What `include` says to have log-probabilities."""


async def turn_of(
    state: ServerState,
    llm: Face,
    request: InputTokensRequest,
    items: list[dict[str, Any]],
    tools: Tools,
    request_id: str,
) -> Turn:
    """The turn; `items` with those of earlier responses. Raises InvalidRequestError."""
    turn = Turn(
        messages=chat_messages(request.instructions, items),
        params=_params(request, llm.default_sampling_values()),
        request_id=request_id,
        tools=tools.functions,
        tool_choice=tools.choice,
        named_tool=tools.named,
        parallel_tool_calls=request.parallel_tool_calls,
        constraint=_constraint(request),
        include_reasoning=getattr(request, "include_reasoning", True),
        options=ChatOptions(
            template_kwargs={
                **state.config.default_chat_template_kwargs,
                **_effort(request),
                **(request.chat_template_kwargs or {}),
            }
        ),
        max_tokens_given=getattr(request, "max_output_tokens", None) is not None,
        priority=getattr(request, "priority", 0),
        cache_salt=getattr(request, "cache_salt", None),
    )
    if request.truncation == "auto":
        room = llm.info.max_model_len - (getattr(request, "max_output_tokens", None) or 1)
        turn = replace(turn, messages=await _fitted(llm, turn, room))
    return turn


def _params(request: InputTokensRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    if not isinstance(request, ResponsesRequest):
        return SamplingParams(max_tokens=1, output_kind=RequestOutputKind.DELTA)
    fields = {name: defaults.get(name) for name in _FROM_MODEL}
    given = {name: getattr(request, name) for name in _AS_SENT}
    fields |= {name: value for name, value in given.items() if value is not None}
    limits = [request.max_output_tokens, defaults.get("max_tokens")]
    wanted = [one for one in limits if one is not None]
    return SamplingParams.from_optional(
        **fields,
        max_tokens=min(wanted) if wanted else None,
        logprobs=request.top_logprobs if wants_logprobs(request) else None,
        extra_args=request.vllm_xargs,
        output_kind=RequestOutputKind.DELTA,
    )


def wants_logprobs(request: ResponsesRequest) -> bool:
    """Whether texts come with log-probabilities."""
    return LOGPROBS in (request.include or ()) or request.top_logprobs > 0


def _effort(request: InputTokensRequest) -> dict[str, Any]:
    effort = (request.reasoning or {}).get("effort")
    if effort is None:
        return {}
    if not isinstance(effort, str):
        refuse("reasoning.effort", "reasoning.effort must be a text such as low or high")
    return {"reasoning_effort": effort}


def _constraint(request: InputTokensRequest) -> StructuredOutputsParams | None:
    """The constraint of `text.format` or `structured_outputs`."""
    given = (request.text or {}).get("format")
    if given is not None and given.get("type") == "json_schema":
        names = ("name", "description", "schema", "strict")
        inner = {name: given[name] for name in names if name in given}
        if not isinstance(inner.get("schema"), dict):
            refuse("text.format.schema", "text.format.schema is missing; send a JSON schema")
        given = {"type": "json_schema", "json_schema": inner}
    found = constraint_of(given, getattr(request, "structured_outputs", None))
    if found is not None and given is not None:
        found.origin = "text.format"
    return found


async def _fitted(llm: Face, turn: Turn, room: int) -> list[dict[str, Any]]:
    """The messages without the oldest ones that do not fit, cut where a user speaks."""
    messages: list[dict[str, Any]] = turn.messages
    head = 1 if messages and messages[0]["role"] == "system" else 0
    options = replace(turn.options, tools=turn.tools)
    cuts = [head] + [
        place for place, one in enumerate(messages) if place > head and one["role"] == "user"
    ]
    low, high = 0, len(cuts) - 1
    while low < high:  # the first cut from which all fits; the last one if none does
        middle = (low + high) // 2
        shorter = messages[:head] + messages[cuts[middle] :]
        prompt = await llm.render_chat(shorter, options, truncates=True)
        if len(prompt.token_ids) <= room:
            high = middle
        else:
            low = middle + 1
    return messages[:head] + messages[cuts[low] :]
