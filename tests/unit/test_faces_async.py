"""AsyncLLM over a scripted engine: streams, cancellation, slow readers, death, several loops."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from quire.async_llm import AsyncLLM
from quire.config.args import AsyncEngineArgs
from quire.config.schema import Settings
from quire.frontend.inputs import RequestOptions
from quire.protocol.errors import (
    EngineDeadError,
    InvalidRequestError,
    NotServedError,
    RequestFailedError,
)
from quire.protocol.params import RequestOutputKind, SamplingParams
from quire.protocol.results import RequestOutput
from tests import checkpoints
from tests.unit.fake_engine import FakeClient, tokens_of

T = TypeVar("T")
DELTA = RequestOutputKind.DELTA


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("model")
    checkpoints.write_tokenizer(root)
    return root


@pytest.fixture
def client(folder: Path) -> FakeClient:
    return FakeClient(AsyncEngineArgs("model").to_settings(), str(folder), fail_on=[13])


@pytest.fixture
def llm(client: FakeClient) -> Iterator[AsyncLLM]:
    made = AsyncLLM(client)
    yield made
    made.shutdown()


def run(what: Callable[[], Awaitable[T]]) -> T:
    async def limited() -> T:
        async with asyncio.timeout(20):
            return await what()

    return asyncio.run(limited())


async def collect(
    llm: AsyncLLM, prompt: Any, params: SamplingParams | None = None, **more: Any
) -> list[RequestOutput]:
    return [output async for output in llm.generate(prompt, params, "r", **more)]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


def test_outputs_come_as_a_stream(llm: AsyncLLM) -> None:
    outputs = run(lambda: collect(llm, [5], SamplingParams(max_tokens=4, output_kind=DELTA)))
    ids = [one for output in outputs for one in output.outputs[0].token_ids]
    assert ids == tokens_of([5], 4)
    assert outputs[-1].finished and not any(output.finished for output in outputs[:-1])
    assert {output.request_id for output in outputs} == {"r"}


def test_many_requests_at_once_and_the_same_name_twice(llm: AsyncLLM) -> None:
    async def all_of_them() -> list[list[RequestOutput]]:
        return await asyncio.gather(
            *(collect(llm, [one], SamplingParams(max_tokens=6)) for one in range(20, 60))
        )

    for first, outputs in zip(range(20, 60), run(all_of_them), strict=True):
        assert outputs[-1].outputs[0].token_ids == tokens_of([first], 6)
    assert llm.num_unfinished_requests == 0
    assert llm.stats.num_running >= 0 and llm.info.fingerprint == "fake"


@pytest.mark.parametrize("kind", list(RequestOutputKind))
def test_a_slow_reader_gets_merged_outputs(
    llm: AsyncLLM, client: FakeClient, kind: RequestOutputKind
) -> None:
    async def slow() -> list[RequestOutput]:
        options = RequestOptions()
        stream = await llm.add_request(
            "r", [5], SamplingParams(n=2, max_tokens=40, output_kind=kind), options
        )
        await until(lambda: llm.num_unfinished_requests == 0)
        return [output async for output in stream]

    (output,) = run(slow)
    assert output.finished
    assert [choice.token_ids for choice in output.outputs] == [
        tokens_of([5], 40, i) for i in (0, 1)
    ]
    assert [choice.finish_reason for choice in output.outputs] == ["length", "length"]


def test_leaving_a_stream_ends_its_request(llm: AsyncLLM, client: FakeClient) -> None:
    params = SamplingParams(max_tokens=None, output_kind=DELTA)

    async def leave() -> None:
        outputs = llm.generate([5], params, "r")
        client.gate.clear()
        reading = asyncio.create_task(anext(outputs))  # type: ignore[arg-type]
        await until(lambda: len(client.live) == 1)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert client.live == {} and len(client.aborted) == 1

        client.gate.set()
        outputs = llm.generate([5], params, "r")
        await anext(outputs)
        await outputs.aclose()
        assert client.live == {} and llm.num_unfinished_requests == 0

        async for _ in llm.generate([5], params, "r"):
            break
        await until(lambda: not client.live and llm.num_unfinished_requests == 0)

    run(leave)


def test_abort_by_name_gives_a_last_output(llm: AsyncLLM, client: FakeClient) -> None:
    async def abort() -> tuple[list[RequestOutput], list[RequestOutput]]:
        client.gate.clear()
        tasks = [
            asyncio.create_task(collect(llm, [5], SamplingParams(max_tokens=None)))
            for _ in range(2)
        ]
        await until(lambda: len(client.live) == 2)
        await llm.abort(["r", "unknown"])
        first, second = await asyncio.gather(*tasks)
        return first, second

    for outputs in run(abort):
        assert outputs[-1].finished and outputs[-1].outputs[0].finish_reason == "abort"
    assert client.live == {}


def test_a_refused_request_raises_at_the_first_use(llm: AsyncLLM, client: FakeClient) -> None:
    cases: list[tuple[Any, dict[str, Any], type[Exception]]] = [
        ([], {}, InvalidRequestError),
        ("x" * 10_000, {}, InvalidRequestError),
        (None, {}, TypeError),
        ([5], {"priority": 1}, InvalidRequestError),
        ([5], {"data_parallel_rank": 1}, NotServedError),
        (
            [5],
            {"strict": True, "sampling_params": SamplingParams(max_tokens=64, min_tokens=64)},
            InvalidRequestError,
        ),
    ]
    for prompt, more, error in cases:
        params = more.pop("sampling_params", None)
        with pytest.raises(error):
            run(lambda p=prompt, s=params, m=more: collect(llm, p, s, **m))
    assert client.most_live == 0 and llm.num_unfinished_requests == 0


def test_long_texts_are_served(llm: AsyncLLM) -> None:
    how = {"truncate_prompt_tokens": 5}
    outputs = run(
        lambda: collect(llm, "the sea and the harbour " * 400, None, tokenization_kwargs=how)
    )
    assert len(outputs[-1].prompt_token_ids or ()) == 5 and outputs[-1].finished


def test_a_failed_request_raises_for_its_reader_only(llm: AsyncLLM) -> None:
    async def both() -> list[Any]:
        return await asyncio.gather(collect(llm, [13]), collect(llm, [14]), return_exceptions=True)

    failed, served = run(both)
    assert isinstance(failed, RequestFailedError) and str(failed) == "it failed"
    assert served[-1].finished and llm.is_running


def test_death_ends_every_request(llm: AsyncLLM, client: FakeClient) -> None:
    async def die() -> list[Any]:
        await llm.check_health()
        client.gate.clear()
        tasks = [asyncio.create_task(collect(llm, [one])) for one in (5, 6)]
        await until(lambda: len(client.live) == 2)
        client.die("the engine process ended with code -9")
        found = await asyncio.gather(*tasks, return_exceptions=True)
        with pytest.raises(EngineDeadError, match="-9"):
            await collect(llm, [7])
        with pytest.raises(EngineDeadError, match="-9"):
            await llm.check_health()
        return found

    assert all(isinstance(one, EngineDeadError) and "-9" in str(one) for one in run(die))
    assert llm.errored and not llm.is_running and llm.is_stopped and not llm.is_ready
    assert "-9" in str(llm.dead_error) and llm.num_unfinished_requests == 0


def test_shutdown_ends_requests(llm: AsyncLLM, client: FakeClient) -> None:
    async def stop() -> list[Any]:
        client.gate.clear()
        task = asyncio.create_task(collect(llm, [5]))
        await until(lambda: len(client.live) == 1)
        llm.shutdown()
        llm.shutdown()
        return await asyncio.gather(task, return_exceptions=True)

    (ended,) = run(stop)
    assert isinstance(ended, EngineDeadError) and client.is_shut_down
    with pytest.raises(EngineDeadError, match="shut down"):
        run(lambda: collect(llm, [5]))


def test_one_loop_after_the_other(llm: AsyncLLM) -> None:
    for _ in range(3):
        assert (
            len(
                run(lambda: collect(llm, [5], SamplingParams(max_tokens=3)))[-1]
                .outputs[0]
                .token_ids
            )
            == 3
        )


def test_waiting_until_all_is_done(llm: AsyncLLM, client: FakeClient) -> None:
    async def drain() -> None:
        client.gate.clear()
        task = asyncio.create_task(collect(llm, [5]))
        await until(lambda: len(client.live) == 1)
        with pytest.raises(TimeoutError):
            await llm.wait_for_requests_to_drain(0.05)
        client.gate.set()
        await llm.wait_for_requests_to_drain(5)
        assert (await task)[-1].finished

    run(drain)


def test_readiness_and_the_rest_of_the_surface(llm: AsyncLLM, client: FakeClient) -> None:
    assert not llm.is_ready and llm.phase == ("starting", -1)
    assert llm.wait_ready() is llm.info and llm.is_ready
    assert llm.default_sampling_values() == {"temperature": 0.5}
    assert llm.settings == client.settings

    async def rest() -> None:
        assert (await llm.get_tokenizer()).eos_token_id == checkpoints.EOS_ID
        assert await llm.reset_prefix_cache() is True
        with pytest.raises(NotServedError):
            await llm.reset_prefix_cache(reset_connector=True)

    run(rest)


def test_a_dropped_face_ends_its_engine(client: FakeClient) -> None:
    llm = AsyncLLM(client)
    run(partial(collect, llm, [5]))
    gone = weakref.ref(llm)
    del llm
    gc.collect()
    assert gone() is None and client.is_shut_down


def test_from_engine_args(monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path) -> None:
    made: list[FakeClient] = []

    def make(settings: Settings, *, own_process: bool, early: Any) -> FakeClient:
        assert own_process and early is None
        made.append(FakeClient(settings, str(folder)))
        return made[-1]

    monkeypatch.setattr("quire.async_llm.make_client", make)
    llm = AsyncLLM.from_engine_args(AsyncEngineArgs("model", block_size=8))
    assert llm.is_ready and llm.settings.cache.block_size == 8
    llm.shutdown()
    with pytest.raises(TypeError):
        AsyncLLM.from_engine_args(AsyncEngineArgs("model"), stat_loggers=[object()])
    with pytest.raises(ValueError, match=r"tokenizer\.json"):
        AsyncLLM.from_engine_args(AsyncEngineArgs("model", tokenizer=str(tmp_path)))
    assert made[-1].is_shut_down


def test_seeds_are_the_systems_unless_one_is_set(folder: Path) -> None:
    def seeds(**settings: Any) -> int | None:
        client = FakeClient(AsyncEngineArgs("model", **settings).to_settings(), str(folder))
        llm = AsyncLLM(client)
        seed = run(lambda: collect(llm, [5]))[-1].outputs[0].seed
        llm.shutdown()
        return seed

    assert seeds() != seeds()
    assert seeds(seed=0) == seeds(seed=0) != seeds(seed=1)
