"""/v1/responses: create, retrieve, cancel, delete, list the input, count its tokens.

Fields are `server.schema.responses`; what a response is and how it is kept `server.responses`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.protocol.errors import InvalidRequestError
from quire.server.body import convert, read_json
from quire.server.chat_output import ChatLog
from quire.server.completion_output import encode
from quire.server.errors import JSON, HttpError
from quire.server.face import Face
from quire.server.heads import ignored_fields, openapi_of, priority
from quire.server.responses.items import input_items
from quire.server.responses.live import Responses
from quire.server.responses.resource import response_head
from quire.server.responses.run import News, ResponseRun, encoded
from quire.server.responses.tools import Tools, after_call, read_tools
from quire.server.responses.turn import turn_of, wants_logprobs
from quire.server.responses.writer import OutputWriter
from quire.server.schema.responses import (
    InputTokensRequest,
    ResponsesRequest,
    check_input,
    check_responses,
)
from quire.server.schema.sampling import refuse
from quire.server.sse import EventStream, answer
from quire.server.state import ServerState, new_id
from quire.server.turns import Prepared, prepare

router = APIRouter()

_SEALED = "reasoning.encrypted_content"


def _responses(http: Request) -> Responses:
    found: Responses = http.app.state.responses
    return found


@router.post("/v1/responses", openapi_extra=openapi_of(ResponsesRequest))
async def create(http: Request) -> Response:
    """Answers the input: whole, as a stream of events, or in the background."""
    state: ServerState = http.app.state.quire
    kept = _responses(http)
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, ResponsesRequest, strict=state.config.strict)
    model = state.check_model(request.model)
    check_responses(
        request, has_store=kept.has_store, max_logprobs=state.settings.model.max_logprobs
    )
    if not kept.has_store:
        request.store = False
    request.priority = priority(http, request)
    remote = await answer(http, kept.servers.tools_of(request.tools))
    tools = read_tools(request.tools, request.tool_choice, remote)
    headers = ignored_fields([*unknown, *tools.ignored])
    with state.in_flight():
        run = await answer(http, _run(state, llm, kept, request, model, tools))
        if request.background:
            return await _background(kept, run, headers)
        if request.stream:
            return await _stream(http, kept, run, headers)
        with kept.running(run):
            return await answer(http, _whole(kept, run, headers))


async def _run(
    state: ServerState,
    llm: Face,
    kept: Responses,
    request: ResponsesRequest,
    model: str,
    tools: Tools,
) -> ResponseRun:
    """The response, checked and rendered. Raises InvalidRequestError or HttpError."""
    response_id = request.request_id or f"resp_{new_id()}"
    if request.request_id is not None and kept.is_known(response_id):
        refuse("request_id", f"request_id {response_id!r} is taken; leave it out or change it")
    items = input_items(request.input)
    earlier = await kept.earlier_items(request.previous_response_id)

    async def prepared(output: list[dict[str, Any]], num_used: int = 0) -> Prepared:
        every, limit = [*earlier, *items, *output], request.max_output_tokens
        left = None if limit is None else limit - num_used
        asked = msgspec.structs.replace(request, max_output_tokens=left)
        chosen = after_call(tools, state.settings.parsers) if output else tools
        turn = await turn_of(state, llm, asked, every, chosen, response_id)
        with _names_of_responses():
            return await prepare(state, llm, turn)

    log = None
    if wants_logprobs(request):
        log = ChatLog(await llm.get_tokenizer(), request.top_logprobs, as_ids=False)
    first = await prepared([])
    return ResponseRun(
        state=state,
        llm=llm,
        request=request,
        prepared=first,
        writer=OutputWriter(
            custom=tools.custom,
            remote={name: tool.label for name, tool in tools.remote.items()},
            seals_reasoning=_SEALED in (request.include or ()),
        ),
        head=response_head(
            request, first.params, response_id=response_id, model=model, created=int(time.time())
        ),
        items=items,
        log=log,
        servers=kept.servers,
        remote=tools.remote,
        again=prepared,
    )


@contextlib.contextmanager
def _names_of_responses() -> Iterator[None]:
    """Errors about the prompt or its limits are about the fields that a response has for them."""
    try:
        yield
    except InvalidRequestError as error:
        if error.param == "prompt":
            raise HttpError(400, str(error), type="invalid_request_error", param="input") from None
        names = {"messages": "input", "max_tokens": "max_output_tokens"}
        error.param = names.get(error.param or "", error.param)
        raise


async def _whole(kept: Responses, run: ResponseRun, headers: dict[str, str]) -> Response:
    with _names_of_responses():
        body = await run.whole(await run.begin())
    await kept.keep(run)
    return Response(encode(body), headers=headers, media_type=JSON)


async def _background(kept: Responses, run: ResponseRun, headers: dict[str, str]) -> Response:
    log = await kept.start(run)
    if run.request.stream:
        return EventStream(log.read(0), headers=headers)
    return Response(encode(run.resource()), headers=headers, media_type=JSON)


async def _stream(
    http: Request, kept: Responses, run: ResponseRun, headers: dict[str, str]
) -> Response:
    """The stream's answer, once the model has begun: until then errors have their own status."""
    live = contextlib.ExitStack()
    live.enter_context(run.state.in_flight())
    live.enter_context(kept.running(run))
    try:
        with _names_of_responses():
            news = await answer(http, run.begin())
    except BaseException:
        live.close()
        raise
    return EventStream(_events(kept, run, news), headers=headers, finally_=live.close)


async def _events(kept: Responses, run: ResponseRun, news: News) -> AsyncGenerator[bytes, None]:
    number = 0
    for kind in ("response.created", "response.in_progress"):
        yield encoded({"type": kind, "response": run.resource()}, number)
        number += 1
    is_kept = False
    async with contextlib.aclosing(run.events(news)) as events:
        async for event in events:
            if run.has_ended and not is_kept:
                is_kept = True
                await kept.keep(run)  # before its last event: a reader of that may refer to it
            yield encoded(event, number)
            number += 1


@router.get("/v1/responses/{response_id}")
async def retrieve(http: Request, response_id: str) -> Response:
    """A response as it is now; with `stream` its events from `starting_after` on."""
    kept = _responses(http)
    if http.query_params.get("stream", "false").lower() in ("true", "1"):
        start = _number(http, "starting_after", -1, low=-1, high=1 << 53) + 1
        return EventStream(await kept.events(response_id, start))
    return Response(encode(await kept.get(response_id)), media_type=JSON)


@router.post("/v1/responses/{response_id}/cancel")
async def cancel(http: Request, response_id: str) -> Response:
    """Ends a response that runs in the background."""
    return Response(encode(await _responses(http).cancel(response_id)), media_type=JSON)


@router.delete("/v1/responses/{response_id}")
async def delete(http: Request, response_id: str) -> Response:
    """Forgets a response."""
    await _responses(http).delete(response_id)
    body = {"id": response_id, "object": "response", "deleted": True}
    return Response(encode(body), media_type=JSON)


@router.get("/v1/responses/{response_id}/input_items")
async def list_items(http: Request, response_id: str) -> Response:
    """The input items of a response, the last one first unless `order` is asc."""
    items = await _responses(http).items(response_id)
    order = http.query_params.get("order", "desc")
    if order not in ("asc", "desc"):
        refuse("order", "order must be asc or desc")
    items = items if order == "asc" else items[::-1]
    after = http.query_params.get("after")
    if after is not None:
        places = [place for place, item in enumerate(items) if item["id"] == after]
        if not places:
            refuse("after", "after is the id of no item of this response")
        items = items[places[0] + 1 :]
    limit = _number(http, "limit", 20, low=1, high=100)
    data = items[:limit]
    body = {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": len(items) > limit,
    }
    return Response(encode(body), media_type=JSON)


def _number(http: Request, name: str, default: int, *, low: int, high: int) -> int:
    text = http.query_params.get(name)
    if text is None:
        return default
    try:
        found = int(text[:20])
    except ValueError:
        found = low - 1
    if not low <= found <= high:
        refuse(name, f"{name} is {text[:20]!r}; it must be a number from {low} to {high}")
    return found


@router.post("/v1/responses/input_tokens", openapi_extra=openapi_of(InputTokensRequest))
async def input_tokens(http: Request) -> Response:
    """The tokens that the request's prompt would have."""
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config)
    request, unknown = convert(body, InputTokensRequest, strict=state.config.strict)
    state.check_model(request.model)
    check_input(request)
    remote = await answer(http, _responses(http).servers.tools_of(request.tools))
    tools = read_tools(request.tools, request.tool_choice, remote)
    earlier = await _responses(http).earlier_items(request.previous_response_id)
    items = [*earlier, *input_items(request.input)]
    with _names_of_responses():
        turn = await turn_of(state, llm, request, items, tools, "count")
        prepared = await answer(http, prepare(state, llm, turn))
    headers = ignored_fields([*unknown, *tools.ignored])
    found = {"object": "response.input_tokens", "input_tokens": len(prepared.prompt_token_ids)}
    return Response(encode(found), headers=headers, media_type=JSON)
