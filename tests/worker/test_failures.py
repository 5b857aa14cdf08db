"""A row that goes wrong ends alone: its batch mates give the bits of their solo runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire.engine.client import EngineClient, InProcessClient
from quire.worker.output import Output
from tests.e2e.driver import Job, bits, engine, run

JOBS = [
    Job(
        tuple(5 + (number * 31 + 7 * i) % 400 for i in range(20 + 15 * number)),
        {"max_tokens": 8, "temperature": 0.7, "logprobs": 1, "ignore_eos": True},
        seed=number,
    )
    for number in range(5)
]
BAD = 2


def _break(monkeypatch: pytest.MonkeyPatch, after: int) -> list[int]:
    """Makes sampling raise for the third job once it has `after` output tokens."""
    raised: list[int] = []
    real = Output._sample_row

    def sample_row(self: Output, index: int, end: int) -> Any:
        new = self._state.row(index).new
        if new.request_id == f"r-{BAD}" and end - new.num_prompt_tokens >= after:
            raised.append(end)
            raise RuntimeError("planted")
        return real(self, index, end)

    monkeypatch.setattr(Output, "_sample_row", sample_row)
    return raised


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("after", [0, 3])
def test_a_raising_row_ends_alone(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, depth: int, after: int
) -> None:
    folder = checkpoint("llama")
    with engine(folder, max_model_len=256) as client:
        alone = bits(run(client, JOBS, at_once=1))
    raised = _break(monkeypatch, after)
    with engine(folder, max_model_len=256, async_scheduling=depth == 2) as client:
        found = run(client, JOBS)
        for number, sequences in enumerate(found):
            if number == BAD:
                assert sequences[0].finish_reason == "error"
                assert "planted" in (sequences[0].error or "")
            else:
                assert bits([sequences]) == [alone[number]]
        assert len(raised) >= 2, "it must fail once in company and once alone"
        assert _blocks_in_use(client) == 0
        assert bits(run(client, JOBS[:1], tag="again")) == alone[:1], "the engine goes on"


def _blocks_in_use(client: EngineClient) -> int:
    return int(client.call("blocks_in_use"))


def test_logits_that_are_not_finite_end_one_request_after_one_more_try(
    checkpoint: Callable[..., Path],
) -> None:
    folder = checkpoint("llama")
    with engine(folder, max_model_len=256) as client:
        alone = bits(run(client, JOBS, at_once=1))
    with engine(folder, max_model_len=256) as client:
        assert isinstance(client, InProcessClient)
        worker = client._core.executor.worker
        state, decoder = worker.runner.state, worker.runner.decoder
        real, tries = worker.runner.output._sampler.sample, []

        def sample(logits: Any, rows: list[Any]) -> Any:
            for place, row in enumerate(rows):
                if row.seed == BAD:
                    logits[place, 7] = float("nan")
                    tries.append(row.output_position)
            return real(logits, rows)

        worker.runner.output._sampler.sample = sample
        found = run(client, JOBS)
        assert state is not None and decoder is not None
        assert found[BAD][0].finish_reason == "error"
        assert "not finite" in (found[BAD][0].error or "")
        assert len(tries) == 2
        assert [bits([s])[0] for n, s in enumerate(found) if n != BAD] == [
            one for n, one in enumerate(alone) if n != BAD
        ]
        assert _blocks_in_use(client) == 0
