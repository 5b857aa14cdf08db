"""From a request of /v1/messages to a turn of conversation, and why its answer ended.

Blocks are converted in `server.messages.convert`; the turn is run by `server.turns`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.protocol.chat import ChatOptions
from quire.protocol.params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from quire.protocol.results import CompletionOutput
from quire.server.messages.convert import chat_messages, function_tools, is_prefill, tool_choice
from quire.server.schema.messages import CountTokensRequest, MessagesRequest
from quire.server.schema.sampling import refuse
from quire.server.schema.tools import check_tools
from quire.server.state import ServerState
from quire.server.turns import Turn

_FROM_MODEL = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")


def turn_of(
    state: ServerState, request: CountTokensRequest, request_id: str, defaults: Mapping[str, Any]
) -> Turn:
    """The turn. Raises InvalidRequestError.

    defaults  fields that the model's generation config sets.
    """
    tools = function_tools(request.tools)
    if tools is not None:
        check_tools(tools)
    choice, named, parallel = tool_choice(request.tool_choice, has_tools=tools is not None)
    if named is not None and named not in [one["function"]["name"] for one in tools or ()]:
        refuse(
            "tool_choice.name", f"tool_choice names {named[:64]!r}, which is not among the tools"
        )
    messages = chat_messages(request.messages, request.system)
    goes_on = is_prefill(messages)
    variables = {**state.config.default_chat_template_kwargs, **_variables(request)}
    return Turn(
        messages=messages,
        params=_params(request, defaults),
        request_id=request_id,
        tools=tools,
        tool_choice=choice,
        named_tool=named,
        parallel_tool_calls=parallel,
        constraint=_constraint(request),
        include_reasoning=_shows_thinking(request.thinking),
        options=ChatOptions(
            add_generation_prompt=not goes_on,
            continue_final_message=goes_on,
            template_kwargs=variables,
        ),
        priority=getattr(request, "priority", 0),
        cache_salt=getattr(request, "cache_salt", None),
    )


def _params(request: CountTokensRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    if not isinstance(request, MessagesRequest):
        return SamplingParams(max_tokens=1, output_kind=RequestOutputKind.DELTA)
    fields = {name: defaults.get(name) for name in _FROM_MODEL}
    given = {name: getattr(request, name) for name in ("temperature", "top_p", "top_k", "seed")}
    fields |= {name: value for name, value in given.items() if value is not None}
    limits = [one for one in (request.max_tokens, defaults.get("max_tokens")) if one is not None]
    budget = (request.thinking or {}).get("budget_tokens")
    if budget is not None and (type(budget) is not int or budget < 1):
        refuse("thinking.budget_tokens", "thinking.budget_tokens must be a number of at least 1")
    return SamplingParams.from_optional(
        **fields,
        max_tokens=min(limits),
        stop=request.stop_sequences,
        thinking_token_budget=budget,
        output_kind=RequestOutputKind.DELTA,
    )


def _variables(request: CountTokensRequest) -> dict[str, Any]:
    """Variables of the template: what the request says of thinking, and its own."""
    found: dict[str, Any] = {}
    kind = (request.thinking or {}).get("type")
    if request.thinking is not None:
        if kind not in ("enabled", "adaptive", "disabled"):
            refuse("thinking.type", "thinking.type must be enabled, adaptive or disabled")
        found["enable_thinking"] = kind != "disabled"
    effort = (request.output_config or {}).get("effort")
    if effort is not None:
        if not isinstance(effort, str):
            refuse(
                "output_config.effort", "output_config.effort must be a text such as low or high"
            )
        found["reasoning_effort"] = effort
    return found | (request.chat_template_kwargs or {})


def _shows_thinking(thinking: dict[str, Any] | None) -> bool:
    given = thinking or {}
    return given.get("type") != "disabled" and given.get("display") != "omitted"


def _constraint(request: CountTokensRequest) -> StructuredOutputsParams | None:
    """The schema of the answer, from `output_config.format` or the older `output_format`."""
    name = "output_config.format"
    wanted = (request.output_config or {}).get("format")
    if wanted is None:
        name, wanted = "output_format", request.output_format
    if wanted is None:
        return None
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    if not isinstance(schema, dict) or wanted.get("type") != "json_schema":
        refuse(name, f"{name} must be an object with type json_schema and a schema")
    return StructuredOutputsParams(json=schema, origin=name)


def ending(
    output: CompletionOutput, *, has_calls: bool, num_tokens: int, max_tokens: int | None
) -> tuple[str, str | None]:
    """`stop_reason` and `stop_sequence` of an answer that ended with this output."""
    if output.finish_reason == "length":
        whole = max_tokens is None or num_tokens >= max_tokens
        return ("max_tokens" if whole else "model_context_window_exceeded"), None
    if isinstance(output.stop_reason, str):
        return "stop_sequence", output.stop_reason
    return ("tool_use" if has_calls else "end_turn"), None
