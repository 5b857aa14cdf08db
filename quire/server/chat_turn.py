"""From a chat request to a turn, and from a turn to what gathers its answer.

Used by the route that answers and by the one that only renders; turns are `server.turns`.
"""

from __future__ import annotations

from typing import Any

from quire.server.chat_output import ChatAnswer
from quire.server.chat_params import sampling_params, wanted_tokens
from quire.server.completion_params import tokenization_kwargs
from quire.server.face import Face
from quire.server.schema.chat import ChatRequest, chat_options
from quire.server.schema.constraints import constraint_in
from quire.server.schema.tools import read_choice
from quire.server.state import ServerState
from quire.server.turns import Prepared, Turn


def turn_of(
    state: ServerState,
    llm: Face,
    request: ChatRequest,
    messages: Any,
    *,
    request_id: str,
    priority: int,
) -> Turn:
    """The turn that a checked request asks for. Raises InvalidRequestError.

    messages  those of the request, or one of its conversations.
    """
    choice, named = read_choice(request.tool_choice, request.tools)
    constraint = constraint_in(request)
    if choice == "named" and request.structured_outputs is None:
        constraint = None  # a response_format is about text, and there will be none
    return Turn(
        messages=messages,
        params=sampling_params(request, llm.default_sampling_values()),
        request_id=request_id,
        tools=request.tools,
        tool_choice=choice,
        named_tool=named,
        parallel_tool_calls=request.parallel_tool_calls,
        constraint=constraint,
        include_reasoning=request.include_reasoning,
        options=chat_options(request, state.config.default_chat_template_kwargs),
        max_tokens_given=wanted_tokens(request) is not None,
        priority=priority,
        cache_salt=request.cache_salt,
        tokenization_kwargs=tokenization_kwargs(request),
    )


async def answer_of(
    state: ServerState, llm: Face, request: ChatRequest, prepared: Prepared, messages: Any
) -> ChatAnswer:
    """What gathers the answer of a prepared turn with these messages."""
    config = state.config
    last = messages[-1]
    role = config.response_role if request.add_generation_prompt else str(last["role"])
    as_ids = request.return_tokens_as_token_ids
    return ChatAnswer(
        request,
        prepared,
        role=role,
        echo=_text(last) if request.echo and last["role"] == role else "",
        tokenizer=await llm.get_tokenizer() if request.logprobs else None,
        as_ids=config.return_tokens_as_token_ids if as_ids is None else as_ids,
        cached_details=config.enable_prompt_tokens_details,
        splits=bool(state.settings.parsers.reasoning_parser),
    )


def _text(message: Any) -> str:
    """The text of a message that has been rendered."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part if isinstance(part, str) else part.get("text", "") for part in content)
