"""Rendering without running: clients' requests as token ids, and token ids as clients' answers.

Making them is `server.rendering`; running token ids is `routes.inference`.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.server.body import convert, read_json
from quire.server.completion_output import encode
from quire.server.errors import JSON
from quire.server.heads import ignored_fields, openapi_of
from quire.server.heads import request_id as request_id_of
from quire.server.rendering import (
    ChatBack,
    CompletionBack,
    next_seen,
    read_seen,
    rendered_chat,
    rendered_completion,
)
from quire.server.schema.chat import ChatRequest, check_chat
from quire.server.schema.completions import CompletionRequest, check
from quire.server.schema.render import (
    ChatDerenderRequest,
    CompletionDerenderRequest,
    read_generated,
)
from quire.server.schema.sampling import refuse
from quire.server.sse import answer
from quire.server.state import ServerState

router = APIRouter()


@router.post("/v1/chat/completions/render", openapi_extra=openapi_of(ChatRequest))
async def render_chat(http: Request) -> Response:
    """The request of /inference/v1/generate that a chat request stands for."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config)
    request, unknown = convert(body, ChatRequest, strict=state.config.strict)
    state.check_model(request.model)
    check_chat(
        request,
        max_choices=state.config.max_num_choices,
        max_logprobs=state.settings.model.max_logprobs,
        trusts_templates=state.config.trust_request_chat_template,
    )
    request_id = "chatcmpl-" + request_id_of(http, request)
    found = await answer(http, rendered_chat(state, llm, request, request_id))
    return Response(encode(found), headers=ignored_fields(unknown), media_type=JSON)


@router.post("/v1/completions/render", openapi_extra=openapi_of(CompletionRequest))
async def render_completion(http: Request) -> Response:
    """The requests of /inference/v1/generate that a completions request stands for, one a prompt."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config)
    request, unknown = convert(body, CompletionRequest, strict=state.config.strict)
    state.check_model(request.model)
    check(request, max_choices=state.config.max_num_choices)
    request_id = "cmpl-" + request_id_of(http, request)
    found = await answer(http, rendered_completion(state, llm, request, request_id))
    return Response(encode(found), headers=ignored_fields(unknown), media_type=JSON)


def _num_prompt(request: ChatDerenderRequest | CompletionDerenderRequest, limit: int) -> int:
    """Tokens of the prompt as the client counts them. Raises InvalidRequestError."""
    number = request.prompt_tokens or 0
    if not 0 <= number <= limit:
        refuse("prompt_tokens", f"prompt_tokens must be between 0 and {limit}")
    return number


@router.post("/v1/chat/completions/derender", openapi_extra=openapi_of(ChatDerenderRequest))
async def derender_chat(http: Request) -> Response:
    """The chat completion, or the chunk of a stream, that an answer in token ids stands for."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config)
    request, unknown = convert(body, ChatDerenderRequest, strict=state.config.strict)
    vocab_size = llm.info.vocab_size
    generated = read_generated(
        request.generate_response, "generate_response", vocab_size=vocab_size
    )
    model = state.check_model(request.model)
    num_prompt = _num_prompt(request, llm.info.max_model_len)
    back = await ChatBack.open(
        state, llm, request.chat_request, generated, model=model, num_prompt=num_prompt
    )
    if not request.stream:
        found: dict[str, Any] = await answer(http, back.whole(generated))
    else:
        seen = read_seen(request.stream_state, vocab_size=vocab_size)
        chunk = await answer(http, back.piece(generated, seen))
        found = {"chunk": chunk, "stream_state": next_seen(generated, seen)}
    return Response(encode(found), headers=ignored_fields(unknown), media_type=JSON)


@router.post("/v1/completions/derender", openapi_extra=openapi_of(CompletionDerenderRequest))
async def derender_completion(http: Request) -> Response:
    """The completion, or the chunk of a stream of one prompt, that answers in token ids stand for."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config)
    request, unknown = convert(body, CompletionDerenderRequest, strict=state.config.strict)
    vocab_size = llm.info.vocab_size
    many = request.generate_responses
    given = many if isinstance(many, list) else [request.generate_response]
    if not 1 <= len(given) <= state.config.max_num_prompts or (request.stream and len(given) > 1):
        refuse("generate_responses", "send one answer for each prompt, and for a stream only one")
    generated = [
        read_generated(one, f"generate_responses[{place}]", vocab_size=vocab_size)
        for place, one in enumerate(given)
    ]
    model = state.check_model(request.model)
    num_prompt = _num_prompt(request, llm.info.max_model_len)
    back = CompletionBack(
        state, llm, request.completion_request, generated, model=model, num_prompt=num_prompt
    )
    if not request.stream:
        found: dict[str, Any] = await answer(http, back.whole())
    else:
        seen = read_seen(request.stream_state, vocab_size=vocab_size)
        chunk = await answer(http, back.piece(seen))
        found = {"chunk": chunk, "stream_state": next_seen(generated[0], seen)}
    return Response(encode(found), headers=ignored_fields(unknown), media_type=JSON)
