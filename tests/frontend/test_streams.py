"""Outputs on their way to their readers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from quire.frontend.streams import Deliveries, RequestStream
from quire.protocol.errors import QuireError


@dataclass
class Output:
    """Numbers, joined while nobody reads."""

    numbers: list[int] = field(default_factory=list)
    finished: bool = False
    error: str | None = None

    def failure(self) -> QuireError:
        return QuireError(self.error)

    def add(self, next_output: Output, aggregate: bool) -> None:
        self.numbers += next_output.numbers
        self.finished = next_output.finished


def streams(count: int) -> list[RequestStream[Output]]:
    return [RequestStream(str(one), joins=True, on_close=lambda _: None) for one in range(count)]


def read(stream: RequestStream[Output]) -> list[int]:
    return [] if stream._waiting is None else list(stream._waiting.numbers)


@pytest.mark.parametrize("short", [False, True])
def test_each_stream_gets_its_outputs_in_order(short: bool) -> None:
    async def test() -> None:
        deliveries = Deliveries()
        deliveries.short_turns = short
        all_ = streams(20)
        loop = asyncio.get_running_loop()
        for step in range(3):
            for stream in all_:
                deliveries.add(stream, Output([step]))
            deliveries.begin(loop)
        got = sum(len(read(stream)) for stream in all_)
        assert got == (2 if short else 60)
        for _ in range(40):
            await asyncio.sleep(0)
        assert [read(stream) for stream in all_] == [[0, 1, 2]] * 20

    asyncio.run(test())


def test_what_else_is_ready_comes_between_short_turns() -> None:
    async def test() -> None:
        deliveries = Deliveries()
        deliveries.short_turns = True
        all_ = streams(50)
        for stream in all_:
            deliveries.add(stream, Output([1]))
        deliveries.begin(asyncio.get_running_loop())
        await asyncio.sleep(0)
        assert 0 < sum(len(read(stream)) for stream in all_) < 10
        deliveries.finish()
        assert all(read(stream) == [1] for stream in all_)

    asyncio.run(test())
