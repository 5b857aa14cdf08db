"""Prompts through the engine: one or many at once, checked before the answer begins, ended in any case.

What goes in is made by the routes; how outputs are written is `server.completion_output`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quire.metrics.engine_stats import RequestWatch
from quire.protocol.errors import InvalidRequestError, OutOfCapacityError, RequestFailedError
from quire.protocol.params import SamplingParams
from quire.protocol.results import RequestOutput
from quire.server.errors import HttpError
from quire.server.face import Face
from quire.server.state import ServerState

Outputs = AsyncGenerator[tuple[int, RequestOutput], None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One prompt of a request, with all that the engine is told of it.

    max_tokens_given  whether the client asked for params.max_tokens; a default is cut to the context.
    """

    prompt: str | list[int]
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
        return _admitted(state, jobs, _numbered(_one(state, llm, jobs[0])))
    return _admitted(state, jobs, _merged([_one(state, llm, job) for job in jobs]))


async def _admitted(state: ServerState, jobs: Sequence[Job], outputs: Outputs) -> Outputs:
    """The outputs, if the queue is short enough for all jobs of the request."""
    async with contextlib.aclosing(outputs):
        try:
            admitted = state.admission.enter([job.prompt for job in jobs])
        except OutOfCapacityError:
            state.metrics.count("quire:requests_refused")
            raise
        with contextlib.closing(admitted):
            async for place, output in outputs:
                admitted.take(place, output)
                yield place, output


async def begun(outputs: Outputs) -> Outputs:
    """The same outputs, after the first has come: errors of what was asked are raised here."""
    try:
        first = await anext(outputs)
    except BaseException:
        await outputs.aclose()
        raise
    return _chained(first, outputs)


async def _chained(first: tuple[int, RequestOutput], rest: Outputs) -> Outputs:
    async with contextlib.aclosing(rest):
        yield first
        async for one in rest:
            yield one


async def _numbered(outputs: AsyncGenerator[RequestOutput, None]) -> Outputs:
    async with contextlib.aclosing(outputs):
        async for output in outputs:
            yield 0, output


async def _one(state: ServerState, llm: Face, job: Job) -> AsyncGenerator[RequestOutput, None]:
    watch = state.serving.watch(n=job.params.n, max_tokens=job.params.max_tokens)
    failed = False
    refused = False
    try:
        async with contextlib.aclosing(_fitted(llm, job)) as outputs:
            async for output in outputs:
                watch.take(output)
                state.take_stats()
                _check(output)
                yield output
    except (InvalidRequestError, HttpError):
        refused = True
        raise
    except (asyncio.CancelledError, GeneratorExit):
        raise
    except Exception:
        failed = True
        raise
    finally:
        _close(watch, failed=failed, refused=refused)


def _close(watch: RequestWatch, *, failed: bool, refused: bool) -> None:
    if not refused:
        watch.close(failed=failed)


async def _fitted(llm: Face, job: Job) -> AsyncGenerator[RequestOutput, None]:
    """The job's outputs; a default of max_tokens that does not fit becomes what the context leaves."""
    try:
        async with contextlib.aclosing(_ask(llm, job, job.params)) as outputs:
            async for output in outputs:
                yield output
        return
    except InvalidRequestError as error:
        if error.param != "max_tokens" or job.max_tokens_given:
            raise
    params = job.params.clone()
    params.max_tokens = None
    async with contextlib.aclosing(_ask(llm, job, params)) as outputs:
        async for output in outputs:
            yield output


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
            raise RequestFailedError(output.error or "the request could not be carried out")


async def _merged(streams: Sequence[AsyncGenerator[RequestOutput, None]]) -> Outputs:
    """Outputs of several streams in the order they come; the first error ends all."""
    queue: asyncio.Queue[tuple[int, RequestOutput | BaseException | None]] = asyncio.Queue(
        len(streams)
    )

    async def forward(place: int, stream: AsyncGenerator[RequestOutput, None]) -> None:
        try:
            async with contextlib.aclosing(stream):
                async for output in stream:
                    await queue.put((place, output))
            await queue.put((place, None))
        except Exception as error:
            await queue.put((place, error))

    tasks = [asyncio.create_task(forward(place, one)) for place, one in enumerate(streams)]
    running = len(tasks)
    try:
        while running:
            place, item = await queue.get()
            if item is None:
                running -= 1
            elif isinstance(item, BaseException):
                raise item
            else:
                yield place, item
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
