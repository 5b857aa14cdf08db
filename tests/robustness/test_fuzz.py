"""The fuzzer in small: a few hundred bodies through the socket; and what may stand in sampling parameters.

The full form is `benchmarks.fuzz`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from quire.protocol.errors import InvalidRequestError
from quire.protocol.params import SamplingParams
from tests.e2e.killing import Server, serving
from tests.robustness.alive import Alive
from tests.robustness.fuzzing import FLAGS, Tally, send_round
from tests.robustness.spoilt import ODD, request_of


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder: Path = tmp_path_factory.mktemp("batches")
    with serving(*FLAGS, "--batch-dir", str(folder)) as running:
        yield running


def test_a_few_hundred_bodies(server: Server, alive: Alive) -> None:
    tally = Tally()
    for first in (0, 250):
        requests = [(number, request_of(11, number)) for number in range(first, first + 250)]
        asyncio.run(send_round(server, requests, 16, tally))
        alive.check(most_growth=256 << 20)
    assert tally.faults == []
    assert tally.reached > 0.3 * tally.sent, tally.statuses


def test_the_same_body_every_time() -> None:
    assert [request_of(3, number) for number in range(200)] == [
        request_of(3, number) for number in range(200)
    ]
    assert request_of(3, 5) != request_of(4, 5)


@pytest.mark.parametrize("name", SamplingParams.__struct_fields__)
def test_params_that_can_be_made_can_be_read_by_the_engine(name: str) -> None:
    """Whatever stands in a field, it is refused by name or survives the way to the engine."""
    read = msgspec.msgpack.Decoder(SamplingParams).decode
    for odd in ODD:
        try:
            params = SamplingParams.from_optional(**{name: odd})
        except InvalidRequestError as error:
            assert error.param
            continue
        assert read(msgspec.msgpack.encode(params)) == params
