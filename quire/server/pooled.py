"""Pooling requests through the engine: all texts of a body at once, the first error ends them.

The wire forms are `server.schema.pooling`; the routes write the answers.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from quire.protocol.chat import ChatOptions
from quire.protocol.errors import InvalidRequestError, NotServedError, RequestFailedError
from quire.protocol.params import PoolingParams
from quire.protocol.pooled_results import PoolingOutput, PoolingRequestOutput
from quire.protocol.pooler import Pooler
from quire.server.errors import HttpError
from quire.server.face import Face
from quire.server.heads import priority_of
from quire.server.schema.common import Usage
from quire.server.schema.pooling import (
    MAX_INPUTS,
    InputFields,
    PoolingFields,
    PoolingRequest,
    inputs_of,
)
from quire.server.schema.sampling import refuse
from quire.server.state import ServerState

Pooled = PoolingRequestOutput[PoolingOutput]


@dataclass(frozen=True, kw_only=True)
class PoolJob:
    """One prompt of a request: text, token ids, or two texts as {"prompt", "prompt_pair"}.

    place  what a message calls it.
    """

    prompt: str | list[int] | dict[str, str]
    params: PoolingParams
    request_id: str
    place: str
    priority: int = 0
    cache_salt: str | None = None
    how: Mapping[str, Any] | None = None

    @property
    def to_read(self) -> str | list[int]:
        """What admission measures."""
        return " ".join(self.prompt.values()) if isinstance(self.prompt, dict) else self.prompt


def pooler_of(llm: Face, *tasks: str) -> Pooler:
    """What the model pools. Raises NotServedError if it is none of these tasks; none named: if nothing."""
    pooler = llm.pooler
    if pooler is None:
        raise NotServedError(
            "this model generates text and pools nothing; use /v1/completions or /v1/chat/completions, or start "
            "with --runner pooling"
        )
    if tasks and not set(tasks) & set(pooler.tasks):
        raise NotServedError(
            f"this model does not serve {' or '.join(tasks)}; it serves {', '.join(pooler.tasks)}"
        )
    return pooler


def pool_id(http: Request, request: PoolingFields, prefix: str) -> str:
    """The header's id, else the body's, else the one that the server made, behind a prefix."""
    if http.state.request_id_given:
        return f"{prefix}-{http.state.request_id}"
    return f"{prefix}-{request.request_id or http.state.request_id}"


def how_of(request: PoolingFields) -> dict[str, Any]:
    """How prompts are cut and encoded, as the engine takes it."""
    found: dict[str, Any] = {}
    for name in ("truncate_prompt_tokens", "truncation_side", "add_special_tokens"):
        value = getattr(request, name, None)
        if value is not None:
            found[name] = value
    return found


async def jobs_of(
    state: ServerState,
    llm: Face,
    http: Request,
    request: InputFields,
    params: PoolingParams,
    request_id: str,
) -> list[PoolJob]:
    """A job for each text, or for the conversation. Raises InvalidRequestError."""
    prompts: list[str | list[int]]
    name = "input"
    if request.messages is not None:
        if request.input is not None:
            refuse("messages", "input and messages cannot be used together; send one of them")
        prompts, name = await _rendered(state, llm, request), "messages"
    else:
        prompts = inputs_of(request.input)
    how = how_of(request)
    if name == "messages" and request.add_special_tokens is None:
        how["add_special_tokens"] = False
    is_list = isinstance(request.input, list) and len(prompts) > 0 and prompts != [request.input]
    return [
        PoolJob(
            prompt=prompt,
            params=params,
            request_id=f"{request_id}-{place}",
            place=f"{name}[{place}]" if is_list else name,
            priority=priority_of(http, request.priority),
            cache_salt=request.cache_salt,
            how=how,
        )
        for place, prompt in enumerate(prompts)
    ]


async def jobs_of_data(
    llm: Face, http: Request, request: PoolingRequest, params: PoolingParams, request_id: str
) -> list[PoolJob]:
    """A job for each prompt that the IO processor makes. Raises InvalidRequestError."""
    if request.input is not None or request.messages is not None:
        refuse("data", "data cannot be used together with input or messages; send one of them")
    prompts, merged = await llm.prompts_of_data(request.data, params, request_id)
    if len(prompts) > MAX_INPUTS:
        refuse("data", f"data became {len(prompts)} prompts; the limit is {MAX_INPUTS}")
    return [
        PoolJob(
            prompt=prompt,
            params=merged,
            request_id=f"{request_id}-{place}",
            place=f"data[{place}]",
            priority=priority_of(http, request.priority),
            cache_salt=request.cache_salt,
            how=how_of(request),
        )
        for place, prompt in enumerate(prompts)
    ]


def encoded(found: Any) -> bytes:
    """JSON of an answer with parts of a plug-in's. Raises RequestFailedError for what JSON cannot say."""
    try:
        return msgspec.json.encode(found, enc_hook=_as_data)
    except Exception as error:  # the operator's objects write themselves, and may fail in any way
        raise RequestFailedError(f"the IO processor's answer is no JSON: {error}") from error


def _as_data(thing: Any) -> Any:
    """What pydantic's models and arrays hold."""
    for name in ("model_dump", "tolist"):
        if hasattr(thing, name):
            return getattr(thing, name)()
    raise TypeError(f"{type(thing).__name__} cannot be written")


async def _rendered(state: ServerState, llm: Face, request: InputFields) -> list[str | list[int]]:
    if request.chat_template is not None and not state.config.trust_request_chat_template:
        raise NotServedError(
            "a chat template in a request is not read; leave chat_template out, or start the server with "
            "--trust-request-chat-template",
            param="chat_template",
        )
    kwargs = request.chat_template_kwargs or {}
    if not isinstance(kwargs, dict):
        refuse("chat_template_kwargs", "chat_template_kwargs must be an object")
    options = ChatOptions(
        add_generation_prompt=request.add_generation_prompt,
        continue_final_message=request.continue_final_message,
        template_kwargs={**state.config.default_chat_template_kwargs, **kwargs},
        chat_template=request.chat_template,
    )
    messages = request.messages
    is_batch = isinstance(messages, list) and bool(messages) and isinstance(messages[0], list)
    truncates = request.truncate_prompt_tokens is not None
    return [
        (await llm.render_chat(one, options, truncates=truncates)).token_ids
        for one in (messages if is_batch else [messages])
    ]


async def pool(state: ServerState, llm: Face, jobs: Sequence[PoolJob]) -> list[Pooled]:
    """The results in the order of the jobs.

    Raises OutOfCapacityError before any begins, InvalidRequestError with the place of its job, and
    RequestFailedError or EngineDeadError.
    """
    with state.counts_refusal():
        admitted = state.admission.enter([job.to_read for job in jobs])
    with contextlib.closing(admitted):
        tasks = [asyncio.create_task(_one(state, llm, job)) for job in jobs]
        try:
            found = []
            for place, task in enumerate(tasks):
                found.append(await task)
                admitted.begin(place, found[-1].prompt_token_ids)
            return found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _one(state: ServerState, llm: Face, job: PoolJob) -> Pooled:
    watch = state.serving.watch(n=1, max_tokens=None)
    refused = failed = False
    try:
        outputs = llm.encode(
            job.prompt,
            job.params,
            job.request_id,
            tokenization_kwargs=job.how,
            priority=job.priority,
            cache_salt=job.cache_salt,
        )
        async with contextlib.aclosing(outputs):
            output = (await anext(outputs)).checked()
        watch.take_pooled(len(output.prompt_token_ids), output.num_cached_tokens)
        state.take_stats()
        return output
    except InvalidRequestError as error:
        refused = True
        if error.param == "prompt":
            raise InvalidRequestError(
                f"{job.place}: {error}", param=job.place.partition("[")[0]
            ) from None
        raise
    except HttpError:
        refused = True
        raise
    except asyncio.CancelledError:
        raise
    except Exception:
        failed = True
        raise
    finally:
        watch.close(failed=failed, refused=refused)


def usage_of(state: ServerState, outputs: Sequence[Pooled]) -> Usage:
    """Tokens of all prompts."""
    tokens = sum(len(one.prompt_token_ids) for one in outputs)
    details = None
    if state.config.enable_prompt_tokens_details:
        details = {"cached_tokens": sum(one.num_cached_tokens for one in outputs)}
    return Usage(
        prompt_tokens=tokens,
        total_tokens=tokens,
        completion_tokens=0,
        prompt_tokens_details=details,
    )
