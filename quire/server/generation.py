"""Prompts through the engine: one or many at once, checked before the answer begins, ended in any case.

What goes in is made by the routes; how outputs are written is `server.completion_output`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from quire.protocol.errors import InvalidRequestError
from quire.protocol.params import SamplingParams
from quire.protocol.results import RequestOutput
from quire.server.errors import HttpError
from quire.server.face import Face
from quire.server.state import ServerState

T = TypeVar("T")
Outputs = AsyncGenerator[tuple[int, RequestOutput], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One prompt of a request, with all that the engine is told of it.

    prompt            text, token ids, or {"prompt_embeds": a file as base64}.
    max_tokens_given  whether the client asked for params.max_tokens; a default is cut to the context.
    """

    prompt: str | list[int] | dict[str, str]
    params: SamplingParams
    request_id: str
    max_tokens_given: bool
    priority: int = 0
    cache_salt: str | None = None
    tokenization_kwargs: Mapping[str, Any] | None = None


def run(state: ServerState, llm: Face, jobs: Sequence[Job]) -> Outputs:
    """(place of the job, output) as they come, outputs of kind DELTA. Closing it aborts what still runs.

    Raises OutOfCapacityError before any job begins, the errors of `Face.generate`, and
    RequestFailedError for an output that says so.
    """
    if len(jobs) == 1:
        return _admitted(state, jobs, _one(state, llm, 0, jobs[0]))
    streams = [_one(state, llm, place, job) for place, job in enumerate(jobs)]
    return _admitted(state, jobs, _merged(streams))


async def _admitted(state: ServerState, jobs: Sequence[Job], outputs: Outputs) -> Outputs:
    """The outputs, if the queue is short enough for all jobs of the request."""
    async with contextlib.aclosing(outputs):
        with state.counts_refusal():
            params = jobs[0].params
            admitted = state.admission.enter(
                [job.prompt for job in jobs], num_choices=params.n, max_tokens=params.max_tokens
            )
        with contextlib.closing(admitted):
            async for place, output in outputs:
                admitted.take(place, output)
                yield place, output


async def begun(outputs: AsyncGenerator[T, None]) -> AsyncGenerator[T, None]:
    """The same outputs, after the first has come: errors of what was asked are raised here."""
    try:
        first = await anext(outputs)
    except BaseException:
        await outputs.aclose()
        raise
    return _Begun(first, outputs)


class _Begun(AsyncGenerator[T, None]):
    """A generator whose first value was taken out. Later ones come straight from it: a generator
    around it would be resumed once more for every token."""

    def __init__(self, first: T, rest: AsyncGenerator[T, None]) -> None:
        self._first = [first]
        self._rest = rest

    def __anext__(self) -> Coroutine[Any, Any, T]:
        return self.asend(None)

    def asend(self, value: None) -> Coroutine[Any, Any, T]:
        return _given(self._first.pop()) if self._first else self._rest.asend(value)

    def athrow(self, *error: Any) -> Coroutine[Any, Any, T]:
        return self._rest.athrow(*error)

    def aclose(self) -> Coroutine[Any, Any, None]:
        self._first.clear()
        return self._rest.aclose()


async def _given(value: T) -> T:
    return value


async def _one(state: ServerState, llm: Face, place: int, job: Job) -> Outputs:
    watch = state.serving.watch(n=job.params.n, max_tokens=job.params.max_tokens)
    failed = False
    refused = False
    try:
        output, outputs = await _opened(llm, job)
        async with contextlib.aclosing(outputs):
            while output is not None:
                watch.take(output)
                state.take_stats()
                _check(output)
                yield place, output
                output = await anext(outputs, None)
    except (InvalidRequestError, HttpError):
        refused = True
        raise
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except Exception:
        failed = True
        raise
    finally:
        watch.close(failed=failed, refused=refused)


async def _opened(
    llm: Face, job: Job
) -> tuple[RequestOutput | None, AsyncGenerator[RequestOutput, None]]:
    """The job's first output and the rest of them; a default of max_tokens that does not fit becomes
    what the context leaves."""
    outputs = _ask(llm, job, job.params)
    try:
        return await anext(outputs, None), outputs
    except InvalidRequestError as error:
        if error.param != "max_tokens" or job.max_tokens_given:
            raise
    params = job.params.clone()
    params.max_tokens = None
    outputs = _ask(llm, job, params)
    return await anext(outputs, None), outputs


def _ask(llm: Face, job: Job, params: SamplingParams) -> AsyncGenerator[RequestOutput, None]:
    return llm.generate(
        job.prompt,
        params,
        job.request_id,
        tokenization_kwargs=job.tokenization_kwargs,
        priority=job.priority,
        cache_salt=job.cache_salt,
        strict=True,
    )


def _check(output: RequestOutput) -> None:
    for choice in output.outputs:
        if choice.finish_reason == "error":
            raise output.failure()


async def _merged(streams: Sequence[Outputs]) -> Outputs:
    """Outputs of several streams in the order they come; the first error ends all."""
    queue: asyncio.Queue[tuple[int, RequestOutput] | BaseException | None] = asyncio.Queue(
        len(streams)
    )

    async def forward(stream: Outputs) -> None:
        try:
            async with contextlib.aclosing(stream):
                async for one in stream:
                    await queue.put(one)
            await queue.put(None)
        except Exception as error:
            await queue.put(error)

    tasks = [asyncio.create_task(forward(one)) for one in streams]
    running = len(tasks)
    try:
        while running:
            item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
