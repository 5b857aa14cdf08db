"""POST /generative_scoring: how likely a model that writes finds one of some tokens behind each text.

Scores of models that pool are `routes.score`; running the prompts is `server.generation`.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import Any

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from quire.protocol.errors import InvalidRequestError
from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.protocol.results import RequestOutput
from quire.server.body import convert, read_json
from quire.server.errors import JSON
from quire.server.face import Face
from quire.server.generation import Job, run
from quire.server.heads import ignored_fields, openapi_of, priority
from quire.server.schema.common import usage_of
from quire.server.schema.completions import read_prompts
from quire.server.schema.sampling import kind_of, refuse
from quire.server.sse import answer
from quire.server.state import ServerState

router = APIRouter()

Text = str | list[int]


class GenerativeScoringRequest(msgspec.Struct, kw_only=True):
    """A request as sent; texts are strings, or lists of token ids."""

    model: str | None = None
    query: Any = None
    items: Any = None
    label_token_ids: list[int] | None = None
    apply_softmax: bool = True
    item_first: bool = False
    add_special_tokens: bool = True
    priority: int = 0


@router.post("/generative_scoring", openapi_extra=openapi_of(GenerativeScoringRequest))
async def generative_scoring(http: Request) -> Response:
    """For each item the probability of the first label as the token behind it.

    With apply_softmax it is that among the labels, else that among all tokens.
    """
    state: ServerState = http.app.state.quire
    llm = state.serving_llm()
    body = await read_json(http, state.config, state.check_room)
    request, unknown = convert(body, GenerativeScoringRequest, strict=state.config.strict)
    model = state.check_model(request.model)
    request_id = f"score-{http.state.request_id}"
    with _own_names():
        jobs = _jobs(request, request_id, priority(http, request), state.config.max_num_prompts)
    with state.in_flight():
        outputs = await answer(http, _run(state, llm, jobs))
    prompts = sum(len(one.prompt_token_ids or ()) for one in outputs)
    cached = sum(one.num_cached_tokens or 0 for one in outputs)
    details = cached if state.config.enable_prompt_tokens_details else None
    found = {
        "id": request_id,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {"index": place, "object": "score", "score": _score(request, one)}
            for place, one in enumerate(outputs)
        ],
        "usage": usage_of(prompts, len(outputs), details),
    }
    return Response(msgspec.json.encode(found), headers=ignored_fields(unknown), media_type=JSON)


@contextlib.contextmanager
def _own_names() -> Any:
    """Errors about what the engine is asked name the fields of this request."""
    try:
        yield
    except InvalidRequestError as error:
        if error.param == "logprob_token_ids":
            text = str(error).replace("logprob_token_ids", "label_token_ids")
            raise InvalidRequestError(text, param="label_token_ids") from error
        if error.param == "prompt":
            raise InvalidRequestError(str(error), param="items") from error
        raise


def _jobs(request: GenerativeScoringRequest, request_id: str, rank: int, most: int) -> list[Job]:
    """One job for each item. Raises InvalidRequestError."""
    items = request.items
    if not isinstance(items, list) or not items:
        refuse("items", f"items is {kind_of(items)}; it must be a list with at least one text")
    if len(items) > most:
        refuse("items", f"items has {len(items)} entries; the limit is {most}")
    if request.label_token_ids is None:
        refuse("label_token_ids", "label_token_ids is missing; send the ids of the labels' tokens")
    query = _text(request.query, "query")
    params = SamplingParams(
        temperature=0.0,
        max_tokens=1,
        logprob_token_ids=request.label_token_ids,
        ignore_eos=True,
        seed=0,
        output_kind=RequestOutputKind.DELTA,
    )
    how = {} if request.add_special_tokens else {"add_special_tokens": False}
    prompts = [
        _joined(query, _text(item, f"items[{place}]"), place, request.item_first)
        for place, item in enumerate(items)
    ]
    return [
        Job(
            prompt=prompt,
            params=params,
            request_id=f"{request_id}-{place}",
            max_tokens_given=True,
            priority=rank,
            tokenization_kwargs=how or None,
        )
        for place, prompt in enumerate(read_prompts(prompts, max_prompts=most))
    ]


def _text(value: Any, path: str) -> Text:
    if isinstance(value, str) or (
        isinstance(value, list) and all(type(one) is int for one in value)
    ):
        return value
    refuse(path.partition("[")[0], f"{path} is {kind_of(value)}; it must be text or token ids")


def _joined(query: Text, item: Text, place: int, item_first: bool) -> Text:
    first, last = (item, query) if item_first else (query, item)
    if isinstance(first, str) and isinstance(last, str):
        return first + last
    if isinstance(first, list) and isinstance(last, list):
        return first + last
    refuse("items", f"items[{place}] and query must both be text, or both token ids")


async def _run(state: ServerState, llm: Face, jobs: list[Job]) -> list[RequestOutput]:
    found: dict[int, RequestOutput] = {}
    with _own_names():
        async with contextlib.aclosing(run(state, llm, jobs)) as outputs:
            async for place, output in outputs:
                found[place] = output
    return [found[place] for place in range(len(jobs))]


def _score(request: GenerativeScoringRequest, output: RequestOutput) -> float:
    position = (output.outputs[0].logprobs or [{}])[0]
    labels = request.label_token_ids or []
    likely = [math.exp(position[one].logprob) for one in labels]
    return likely[0] / sum(likely) if request.apply_softmax else likely[0]
