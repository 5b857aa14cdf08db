"""What logits processors are told of the batch: applied in order, the updates always give the rows there are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.ops.registry import Table
from quire.protocol.logits_processors import (
    AdapterLogitsProcessor,
    BatchUpdate,
    LogitsProcessor,
    MoveDirectionality,
)
from quire.protocol.params import SamplingParams
from quire.sampling.processors import Processors
from quire.sampling.sampler import Sampler, SampleRow


def row_of(number: int, **params: Any) -> SampleRow:
    return SampleRow(
        params=SamplingParams(**({"temperature": 0.0, "extra_args": {"row": number}} | params)),
        seed=number,
        index=0,
        output_position=0,
        prompt_ids=np.array([1, number + 1], dtype=np.int32),
        output_ids=np.array([], dtype=np.int32),
        eos_token_ids=(0,),
    )


class Watcher(LogitsProcessor):
    """Keeps rows as it is told to, strictly."""

    def __init__(self, vllm_config: Any = None, device: Any = None, is_pin_memory: bool = False):
        self.rows: dict[int, tuple[int, list[int]]] = {}
        self.updates: list[BatchUpdate | None] = []

    def is_argmax_invariant(self) -> bool:
        return False

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return logits

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        self.updates.append(batch_update)
        if batch_update is None:
            return
        for row in batch_update.removed:
            del self.rows[row]
        for row, params, prompt, output in batch_update.added:
            assert row not in self.rows, "an added row takes a free place"
            number = (params.extra_args or {})["row"]
            assert prompt == [1, number + 1]
            self.rows[row] = (number, output)
        for source, target, direction in batch_update.moved:
            if direction is MoveDirectionality.SWAP:
                self.rows[source], self.rows[target] = self.rows[target], self.rows[source]
            else:
                assert target not in self.rows, "a move fills a hole"
                self.rows[target] = self.rows.pop(source)
        assert batch_update.batch_size == len(self.rows)


@given(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=8), max_size=12))
@settings(max_examples=400, deadline=None)
def test_updates_lead_to_the_batch(steps: list[list[int]]) -> None:
    rows = {number: row_of(number) for number in range(10)}
    watcher = Watcher()
    processors = Processors([watcher])
    for step, numbers in enumerate(steps):
        batch = [rows[number] for number in numbers]
        processors.update(batch)
        assert [watcher.rows[place][0] for place in range(len(batch))] == numbers
        assert set(watcher.rows) == set(range(len(batch)))
        for place, row in enumerate(batch):
            assert watcher.rows[place][1] == row.output_ids.tolist(), "output ids are live"
        for number in numbers:  # each has got a token
            row = rows[number]
            row.output_ids = np.append(row.output_ids, np.int32(100 * number + step))


def test_nothing_is_told_where_nothing_changed() -> None:
    watcher = Watcher()
    processors = Processors([watcher])
    batch = [row_of(1), row_of(2)]
    for _ in range(3):
        processors.update(batch)
    assert [one is None for one in watcher.updates] == [False, True, True]
    processors.update(batch[::-1])
    assert watcher.updates[-1] is not None and watcher.updates[-1].moved


def test_finished_rows_are_refilled_from_below_and_holes_closed_from_above() -> None:
    watcher = Watcher()
    processors = Processors([watcher])
    a, b, c, d, e = (row_of(number) for number in range(5))
    processors.update([a, b, c, d])
    processors.update([e, b, d])
    last = watcher.updates[-1]
    assert last is not None and list(last.removed) == [0, 2]
    assert [(place, params.extra_args) for place, params, _, _ in last.added] == [(0, {"row": 4})]
    assert list(last.moved) == [(3, 2, MoveDirectionality.UNIDIRECTIONAL)]


def test_a_prompt_of_embeddings_has_no_ids() -> None:
    class Look(Watcher):
        def update_state(self, batch_update: BatchUpdate | None) -> None:
            assert batch_update is not None and batch_update.added[0][2] is None

    row = row_of(1)
    row.has_embeds = True
    Processors([Look()]).update([row])


class OnlyIds(AdapterLogitsProcessor):
    """With extra_args["only"], nothing but that id is left; three arguments, as some functions have."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> Any:
        only = (params.extra_args or {}).get("only")
        if only is None:
            return None

        def keep(prompt_ids: list[int], output_ids: list[int], logits: torch.Tensor) -> Any:
            assert prompt_ids[0] == 1 and output_ids == []
            kept = torch.full_like(logits, -math.inf)
            kept[only] = logits[only]
            return kept

        return keep


def sample(logits: torch.Tensor, rows: list[SampleRow], *processors: LogitsProcessor) -> list[Any]:
    made = Sampler(
        Table(),
        vocab_size=logits.shape[1],
        logprobs_mode="raw_logprobs",
        processors=Processors(processors) if processors else None,
    )
    return made.sample(logits.clone(), rows)


def test_an_adapter_acts_on_its_row_and_raw_logprobs_do_not_see_it() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    plain = sample(logits, [row_of(at, logprobs=2) for at in range(3)])
    rows = [row_of(at, logprobs=2) for at in range(3)]
    rows[1] = row_of(1, logprobs=2, extra_args={"only": 7})
    found = sample(logits, rows, OnlyIds(None, torch.device("cpu"), False))
    assert [one.token_id for one in found] == [plain[0].token_id, 7, plain[2].token_id]
    assert found[0].logprobs == plain[0].logprobs and found[2].logprobs == plain[2].logprobs
    best = float(torch.log_softmax(logits[1].double(), 0)[7])
    assert found[1].logprobs.logprobs[0] == pytest.approx(best, abs=1e-4)


class Zero(Watcher):
    """Makes every logit 0, also those of rows that are broken."""

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(logits)


def test_a_grammar_wins_and_a_broken_row_stays_broken() -> None:
    logits = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    logits[2, 5] = math.nan
    rows = [row_of(at) for at in range(3)]
    rows[0].mask = np.array([0, 1 << 9], dtype=np.uint32)  # only id 41
    found = sample(logits, rows, Zero())
    assert found[0].token_id == 41 and not found[0].nonfinite
    assert found[1].token_id == 0, "ties go to the lowest id"
    assert found[2].nonfinite


def test_a_result_of_another_shape_is_an_error() -> None:
    class Half(Watcher):
        def apply(self, logits: torch.Tensor) -> torch.Tensor:
            return logits[:, :3]

    with pytest.raises(ValueError, match=r"Half.apply.*\(1, 10\)"):
        sample(torch.zeros(1, 10), [row_of(0)], Half())
