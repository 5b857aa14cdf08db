"""The sampler: order of its stages, what it reports, and rows that do not notice each other."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from quire.ops.logprobs import TOP_LOGPROBS
from quire.ops.registry import Table
from quire.ops.sample import GUMBEL_DRAW
from quire.protocol.params import SamplingParams
from quire.sampling.constraints import banned_ids
from quire.sampling.sampler import Sampled, Sampler, SampleRow

SIZE = 1001
INF = math.inf


def noise(*shape: int, seed: int = 0, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def row_of(
    *,
    prompt: list[int] | None = None,
    output: list[int] | None = None,
    mask: np.ndarray | None = None,
    eos: tuple[int, ...] = (0,),
    row_seed: int = 5,
    index: int = 0,
    **params: Any,
) -> SampleRow:
    """A row with these params; greedy unless a temperature is given."""
    output = output or []
    return SampleRow(
        params=SamplingParams(**({"temperature": 0.0} | params)),
        seed=row_seed,
        index=index,
        output_position=len(output),
        prompt_ids=np.array(prompt or [1], dtype=np.int32),
        output_ids=np.array(output, dtype=np.int32),
        eos_token_ids=eos,
        mask=mask,
    )


def sampler(mode: str = "raw_logprobs", size: int = SIZE) -> Sampler:
    return Sampler(Table(), vocab_size=size, logprobs_mode=mode)


def one(logits: torch.Tensor, row: SampleRow, mode: str = "raw_logprobs") -> Sampled:
    return sampler(mode, logits.shape[0]).sample(logits[None].clone(), [row])[0]


def mask_of(*ids: int, size: int = SIZE) -> np.ndarray:
    bits = np.zeros(-(-size // 32) * 32, dtype=np.uint8)
    bits[list(ids)] = 1
    return np.packbits(bits, bitorder="little").view("<u4")


def best(logits: torch.Tensor) -> list[int]:
    """Ids from best to worst."""
    return logits.sort(descending=True, stable=True).indices.tolist()


def test_greedy_takes_the_lowest_of_equal_ids() -> None:
    logits = noise(SIZE)
    logits[[700, 30, 900]] = 50.0
    assert one(logits, row_of()) == Sampled(30, None, False)
    assert one(logits, row_of(logprobs=1)).token_id == 30


def test_the_order_of_the_stages_is_the_written_one() -> None:
    """The whole chain against the same steps in plain arithmetic, with every stage on at once."""
    logits = noise(SIZE, scale=0.8)
    logits[[2, 4, 8, 10, 22, 24]] = torch.tensor([2.5, 2.6, 3.5, 3.1, -0.6, 5.0])
    logits[[16, 18, 12, 14, 15, 17]] = 6.0  # banned, or not allowed
    allowed = list(range(0, SIZE, 2))
    mask = np.random.default_rng(0).integers(0, 2**32, -(-SIZE // 32), dtype=np.uint32)
    mask[0] = 0x3FFFFFF  # the ids below 26
    bits = np.unpackbits(mask.view(np.uint8), bitorder="little")[:SIZE] == 1
    row = row_of(
        prompt=[2, 4, 22], output=[8, 10, 8], mask=mask, eos=(12,), min_tokens=5, max_tokens=9,
        stop_token_ids=[14], allowed_token_ids=allowed, bad_words_ids=[[16], [10, 8, 18], [9, 20]],
        logit_bias={22: 3.0, 24: -3.0}, repetition_penalty=1.3, frequency_penalty=0.4,
        presence_penalty=0.2, temperature=0.7, min_p=0.05, top_k=40, top_p=0.9,
    )  # fmt: skip
    x = logits.double()
    x[~torch.from_numpy(bits)] = -INF
    raw = torch.log_softmax(x, 0)
    keep = torch.zeros(SIZE, dtype=torch.bool)
    keep[allowed] = True
    x[~keep] = -INF
    x[22] += 3.0
    x[24] -= 3.0
    x[[16, 18, 12, 14]] = -INF
    for token_id in {2, 4, 22, 8, 10}:  # 22: the bias comes first, and turns its sign
        x[token_id] = x[token_id] / 1.3 if x[token_id] > 0 else x[token_id] * 1.3
    x[8] -= 2 * 0.4 + 0.2
    x[10] -= 0.4 + 0.2
    x /= 0.7
    widths = [int(torch.isfinite(x).sum())]
    x[torch.softmax(x, 0) < 0.05 * torch.softmax(x, 0).max()] = -INF
    widths.append(int(torch.isfinite(x).sum()))
    x[x < x.topk(40).values[-1]] = -INF
    widths.append(int(torch.isfinite(x).sum()))
    order = x.sort(descending=True).indices
    shares = torch.softmax(x, 0)[order]
    x[order[(shares.cumsum(0) - shares) >= 0.9]] = -INF
    kept = torch.isfinite(x)
    widths.append(int(kept.sum()))
    assert sorted(widths, reverse=True) == widths and len(set(widths)) == 4  # each filter bites

    draw = Table().bind(GUMBEL_DRAW, "float32", V=SIZE)
    for seed in range(30):
        row.seed = seed
        row.params.logprobs = 0
        found = one(logits, row)
        want = draw(x.float()[None], [0], seeds=[seed], positions=[3], indices=[0])[0]
        assert found.token_id == want
        assert found.logprobs is not None
        assert found.logprobs.logprobs[0] == pytest.approx(float(raw[want]), abs=1e-5)
        found = one(logits, row, "processed_logprobs")
        assert found.logprobs is not None
        assert found.logprobs.logprobs[0] == pytest.approx(
            float(torch.log_softmax(x, 0)[want]), abs=1e-5
        )
    row.params.logprobs = -1
    report = one(logits, row, "processed_logits").logprobs
    assert report is not None
    finite = [
        token_id
        for token_id, value in zip(report.token_ids[1:], report.logprobs[1:])
        if value > -INF
    ]
    assert sorted(finite) == kept.nonzero()[:, 0].tolist()


def mixed_rows() -> list[SampleRow]:
    """One row of each kind."""
    return [
        row_of(),
        row_of(logprobs=3),
        row_of(temperature=1.0),
        row_of(temperature=0.8, top_p=0.9, logprobs=2),
        row_of(temperature=1.5, top_k=20, min_p=0.05, index=3),
        row_of(mask=mask_of(3, 900), logprobs=1),
        row_of(repetition_penalty=1.2, presence_penalty=1.0, prompt=[4, 5], output=[6, 6]),
        row_of(allowed_token_ids=[7, 8, 9], temperature=1.0, logprob_token_ids=[7, 100]),
        row_of(min_tokens=4, bad_words_ids=[[9]], logit_bias={11: 5.0}, temperature=0.9),
        row_of(temperature=1.0, row_seed=2**64 - 1, output=[1, 2, 3]),
    ]


@pytest.mark.parametrize(
    "mode", ["raw_logprobs", "raw_logits", "processed_logprobs", "processed_logits"]
)
def test_a_row_gets_the_same_alone_and_in_any_batch(mode: str) -> None:
    rows = mixed_rows()
    logits = noise(len(rows), SIZE)
    made = sampler(mode)
    together = made.sample(logits.clone(), rows)
    for order in (list(range(len(rows)))[::-1], [2, 0], [9, 4, 4, 1, 7, 8, 0]):
        found = made.sample(logits[order].clone(), [rows[at] for at in order])
        assert found == [together[at] for at in order]
    for at, row in enumerate(rows):
        assert made.sample(logits[at : at + 1].clone(), [row]) == [together[at]]
    assert [bool(found.logprobs) for found in together] == [
        row.params.wants_logprobs for row in rows
    ]


def test_an_edited_row_is_one_whose_logits_a_stage_may_change() -> None:
    """Taking the long way gives the same token."""
    assert [row.is_edited for row in mixed_rows()] == [False] * 5 + [True] * 4 + [False]
    assert row_of(min_tokens=2, max_tokens=9).is_edited
    assert not row_of(min_tokens=2, max_tokens=9, output=[1, 2]).is_edited
    logits = noise(SIZE)
    assert one(logits, row_of()).token_id == one(logits, row_of(logit_bias={3: 0.0})).token_id


@pytest.mark.parametrize(("mode", "log", "cold"), [
    ("raw_logprobs", True, False), ("raw_logits", False, False),
    ("processed_logprobs", True, True), ("processed_logits", False, True),
])  # fmt: skip
def test_modes_of_logprobs(mode: str, log: bool, cold: bool) -> None:
    logits = noise(SIZE)
    x = logits.double()
    if cold:
        x[5] += 4.0
        x /= 0.5
    values = torch.log_softmax(x, 0) if log else x
    report = one(logits, row_of(temperature=0.5, logprobs=4, logit_bias={5: 4.0}), mode).logprobs
    assert report is not None
    assert report.token_ids[1:] == best(x)[:4]
    assert report.ranks[1:] == [1, 2, 3, 4]
    assert report.ranks[0] == best(x).index(report.token_ids[0]) + 1
    torch.testing.assert_close(
        torch.tensor(report.logprobs).double(), values[report.token_ids], rtol=1e-6, atol=1e-5
    )


def test_logprobs_report_what_is_asked() -> None:
    logits = noise(SIZE)
    order = best(logits)
    for count, length in ((0, 1), (5, 6), (-1, SIZE + 1)):
        report = one(logits, row_of(logprobs=count)).logprobs
        assert report is not None
        assert report.token_ids == [order[0], *order][:length]
    report = one(logits, row_of(logprob_token_ids=[17, 3])).logprobs
    assert report is not None
    assert report.token_ids == [order[0], 17, 3]
    assert report.ranks == [1, order.index(17) + 1, order.index(3) + 1]


def test_prompt_logprobs_are_raw_and_lead_with_the_next_token() -> None:
    logits = noise(4, SIZE)
    before = logits.clone()
    next_ids = np.array([3, 999, 0, 500], dtype=np.int32)
    for mode in ("raw_logprobs", "processed_logits"):
        found = sampler(mode).prompt_logprobs(logits, next_ids, 2)
        want = torch.log_softmax(logits.double(), 1)
        for at, report in enumerate(found):
            assert report.token_ids == [int(next_ids[at]), *best(logits[at])[:2]]
            assert report.logprobs[0] == pytest.approx(float(want[at, next_ids[at]]), abs=1e-5)
    assert torch.equal(logits, before)
    alone = sampler().prompt_logprobs(logits[2:3].clone(), next_ids[2:3], 2)
    assert alone == sampler().prompt_logprobs(logits, next_ids, 2)[2:3]


@pytest.mark.parametrize("bad", ["nan", "inf", "nothing"])
def test_a_row_that_is_not_finite_samples_nothing_and_spares_its_mates(bad: str) -> None:
    rows = mixed_rows()
    logits = noise(len(rows), SIZE)
    want = sampler().sample(logits.clone(), rows)
    for at in range(len(rows)):
        broken = logits.clone()
        if bad == "nan":
            broken[at, 777] = math.nan
        elif bad == "inf":
            broken[at, 777] = INF
        else:
            broken[at] = -INF
        found = sampler().sample(broken, rows)
        assert found[at].nonfinite and found[at].logprobs is None
        assert found[:at] + found[at + 1 :] == want[:at] + want[at + 1 :]


def test_a_few_entries_of_minus_infinity_are_legal() -> None:
    logits = noise(SIZE)
    logits[[0, 5, 1000]] = -INF
    for row in (row_of(), row_of(temperature=1.0, top_p=0.9), row_of(logprobs=-1)):
        found = one(logits, row)
        assert not found.nonfinite and found.token_id not in (0, 5, 1000)
    report = one(logits, row_of(logprobs=-1)).logprobs
    assert report is not None
    assert report.logprobs.count(-INF) == 3


def test_a_mask_without_any_id_is_not_sampled() -> None:
    assert one(noise(SIZE), row_of(mask=mask_of())).nonfinite


def test_min_tokens_ban_what_ends_a_sequence() -> None:
    logits = torch.zeros(50)
    logits[[7, 8, 9]] = torch.tensor([9.0, 8.0, 7.0])
    ends = {"eos": (7,), "stop_token_ids": [8], "min_tokens": 2}
    assert one(logits, row_of(output=[1], **ends)).token_id == 9
    assert one(logits, row_of(output=[1, 1], **ends)).token_id == 7


def test_bad_words_are_banned_at_their_last_token() -> None:
    words = [[3], [4, 5], [4, 5, 6], [9, 5, 7]]
    cases = [([], [3]), ([4], [3, 5]), ([4, 5], [3, 6]), ([5], [3]), ([9, 4, 5], [3, 6])]
    for output, want in cases:
        assert banned_ids(row_of(output=output, bad_words_ids=words)) == want
    assert banned_ids(row_of(prompt=[4], bad_words_ids=words)) == [3]


def test_constraints_that_leave_nothing_yield_to_the_earlier_one() -> None:
    logits = noise(SIZE)
    logits[900] = 50.0
    only_end = row_of(allowed_token_ids=[0], eos=(0,), min_tokens=3)
    assert one(logits, only_end).token_id == 0
    apart = row_of(mask=mask_of(5, 6), allowed_token_ids=[7], bad_words_ids=[[5], [6]])
    assert one(logits, apart).token_id in (5, 6)


def test_biases_of_minus_100_everywhere_still_sample_the_least_bad() -> None:
    logits = noise(50)
    row = row_of(logit_bias=dict.fromkeys(range(50), -100.0))
    assert one(logits, row).token_id == int(logits.argmax())


def test_a_seed_position_and_index_fix_the_draw() -> None:
    logits = torch.zeros(SIZE)
    seen = set()
    for seed, index, output in ((1, 0, []), (2, 0, []), (1, 1, []), (1, 0, [5])):
        row = row_of(temperature=1.0, row_seed=seed, index=index, output=output)
        found = {one(logits, row).token_id for _ in range(3)}
        assert len(found) == 1
        seen |= found
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("params", "width"), [({"min_p": 0.5}, 2), ({"top_k": 3}, 3), ({"top_p": 0.7}, 2), ({}, 5)]
)
def test_each_filter_works_alone(params: dict[str, float], width: int) -> None:
    """Probabilities 0.4, 0.3, 0.15, 0.1 and 0.05."""
    logits = torch.tensor([0.4, 0.3, 0.15, 0.1, 0.05]).log()
    row = row_of(temperature=1.0, logprobs=-1, **params)
    report = one(logits, row, "processed_logprobs").logprobs
    assert report is not None
    assert sum(value > -INF for value in report.logprobs[1:]) == width


def test_the_mode_must_be_known() -> None:
    with pytest.raises(ValueError, match="raw_logprobs"):
        sampler("cooked")


def test_no_filter_at_full_width_draws_from_everything() -> None:
    """Each filter at its neutral value leaves the row as it is."""
    logits = noise(SIZE)
    report = one(
        logits, row_of(temperature=1.0, logprobs=-1, top_k=SIZE), "processed_logits"
    ).logprobs
    assert report is not None
    want = Table().bind(TOP_LOGPROBS, "float32", V=SIZE)(
        logits[None], report.token_ids[:1], counts=[-1], extra=[()], normalize=False
    )
    assert (report.token_ids, report.logprobs, report.ranks) == want[0]
