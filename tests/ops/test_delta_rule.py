"""The gated delta rule and the short convolution: every provider and instruction set against float64.

And their bits: chunks, company, threads and blocks change none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from quire.ops.cpu import library
from quire.ops.delta_rule import DELTA_RULE, DeltaRule, Forgetting
from quire.ops.registry import load_all, providers
from quire.ops.short_conv import SHORT_CONV
from quire.ops.tolerances import TOLERANCES
from tests.ops.cases import DTYPES, noise
from tests.ops.recurrent_cases import Schedule, in_order, together

load_all()
WAYS = ["reference", *library.usable()]
RULES = {
    "qwen3_next": (DeltaRule(2, 4, 32, 64, scale=32**-0.5), 1),
    "in_turns": (DeltaRule(2, 6, 20, 24, scale=0.3, in_turns=True), 1),
    "odd": (DeltaRule(3, 3, 20, 37, scale=0.3, strength=2.0), 1),
    "wide": (DeltaRule(1, 2, 24, 165, scale=0.3), 1),
    "channels": (DeltaRule(2, 2, 48, 40, scale=48**-0.5), 48),
    "bounded": (DeltaRule(2, 2, 48, 40, scale=48**-0.5, bound=0.4), 48),
    "lightning": (DeltaRule(3, 3, 24, 24, unit=False, corrects=False), 0),
}
INTERVAL = 32


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every test runs on the reference and on every instruction set."""
    if request.param != "reference":
        loaded = library.load(request.param)
        monkeypatch.setattr(library, "library", lambda: loaded)
        return "cpu"
    return "reference"


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads that a test sets is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def draw(rule: DeltaRule, channels: int, length: int, dtype: torch.dtype, seed: int) -> list[Any]:
    qkv = noise(length, rule.width, seed=seed, dtype=dtype)
    if not channels:
        return [qkv * 0.3, None, None]
    decay = noise(length, rule.heads * channels, seed=seed + 100, dtype=dtype)
    return [qkv, decay, noise(length, rule.heads, seed=seed + 200, dtype=dtype)]


def forgets(rule: DeltaRule, channels: int) -> Forgetting:
    rate = 0.05 + 0.2 * noise(rule.heads, seed=7).abs()
    shape = (rule.heads, channels) if channels > 1 else (rule.heads,)
    return Forgetting(rate, noise(*shape, seed=8) if channels else None)


def formula(rule: DeltaRule, forgetting: Forgetting, inputs: list[Any]) -> torch.Tensor:
    """[T, H, Dv] in float64, written out token by token and head by head."""
    qkv = inputs[0].double()
    keys, answers = rule.key_heads * rule.key_size, []
    states = [torch.zeros(rule.key_size, rule.value_size).double() for _ in range(rule.heads)]
    for t in range(len(qkv)):
        for h in range(rule.heads):
            served = h % rule.key_heads if rule.in_turns else h // (rule.heads // rule.key_heads)
            at = served * rule.key_size
            q, k = qkv[t, at : at + rule.key_size], qkv[t, keys + at : keys + at + rule.key_size]
            v = qkv[t, 2 * keys + h * rule.value_size :][: rule.value_size]
            if rule.unit:
                q, k = (x / (x @ x + 1e-6).sqrt() for x in (q, k))
            x = torch.zeros(()).double()
            left, strength = torch.exp(-forgetting.rate[h].double()), rule.strength
            if inputs[1] is not None and forgetting.bias is not None:
                x = inputs[1][t].double().view(rule.heads, -1)[h] + forgetting.bias[h].double()
                left = torch.exp(-forgetting.rate[h].double() * torch.log1p(torch.exp(x)))
                if rule.bound:
                    left = torch.exp(-rule.bound * torch.sigmoid(forgetting.rate[h].double() * x))
                strength = rule.strength * float(torch.sigmoid(inputs[2][t, h].double()))
            state = states[h] * left.reshape(-1, 1)
            said = k @ state if rule.corrects else torch.zeros_like(v)
            states[h] = state + torch.outer(k, strength * (v - said))
            answers.append(rule.scale * q @ states[h])
    return torch.stack(answers).view(len(qkv), rule.heads, rule.value_size)


def answers(
    provider: Any, name: str, dtype: torch.dtype, lengths: list[int], steps: Any, interval: int
) -> list[torch.Tensor]:
    rule, channels = RULES[name]
    schedule = Schedule(lengths, interval)
    (view,) = schedule.views((rule.heads, rule.key_size, rule.value_size))
    forgetting = forgets(rule, channels)
    inputs = [draw(rule, channels, n, dtype, seed) for seed, n in enumerate(lengths)]
    return schedule.run(
        steps,
        inputs,
        (rule.heads, rule.value_size),
        lambda packed, plan, out: provider.run(*packed, rule, forgetting, view, plan, out=out),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RULES)
def test_values(way: str, name: str, dtype: str) -> None:
    lengths, tolerance = [70, 1, 33], TOLERANCES["delta_rule"][dtype]
    rule, channels = RULES[name]
    provider = providers(DELTA_RULE)[way]
    steps = [[(0, 0, 40), (1, 0, 1), (2, 0, 33)], [(0, 40, 70)]]
    got = answers(provider, name, DTYPES[dtype], lengths, steps, INTERVAL)
    for number, length in enumerate(lengths):
        inputs = draw(rule, channels, length, DTYPES[dtype], number)
        torch.testing.assert_close(
            got[number].double(),
            formula(rule, forgets(rule, channels), inputs),
            rtol=tolerance.relative,
            atol=tolerance.absolute,
        )


@pytest.mark.parametrize("name", RULES)
def test_neither_chunks_nor_company_nor_blocks_nor_threads_change_a_bit(
    way: str, name: str, threads: None
) -> None:
    provider, dtype = providers(DELTA_RULE)[way], torch.bfloat16
    whole = answers(provider, name, dtype, [70], in_order([70]), INTERVAL)[0]
    for chunks in ([1] * 70, [32, 32, 6], [5, 40, 25], [69, 1]):
        for interval in (INTERVAL, 16, 128):
            got = answers(provider, name, dtype, [70], in_order(chunks), interval)[0]
            assert torch.equal(got, whole), (chunks[:3], interval)
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        many = answers(provider, name, dtype, [70, 9, 50], together([70, 9, 50], 13), INTERVAL)
        assert torch.equal(many[0], whole), f"{count} threads"


def test_instruction_sets_with_fused_products_have_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for isa in set(library.usable()) - {"portable"}:
        loaded = library.load(isa)
        monkeypatch.setattr(library, "library", lambda loaded=loaded: loaded)
        provider = providers(DELTA_RULE)["cpu"]
        found.append(answers(provider, "odd", torch.float32, [70], in_order([70]), INTERVAL)[0])
    assert all(torch.equal(one, found[0]) for one in found)


def test_a_finished_interval_keeps_its_state(way: str) -> None:
    rule, channels = RULES["odd"]
    schedule, provider = Schedule([70], INTERVAL), providers(DELTA_RULE)[way]
    (view,) = schedule.views((rule.heads, rule.key_size, rule.value_size))
    inputs = draw(rule, channels, 70, torch.float32, 0)

    def call(packed: Any, plan: Any, out: torch.Tensor) -> None:
        provider.run(*packed, rule, forgets(rule, channels), view, plan, out=out)

    first, last = [(0, 0, 64)], [(0, 64, 70)]
    want = schedule.run([first, last], [inputs], (rule.heads, rule.value_size), call)[0][64:]
    kept = view.at(int(schedule.tables[0, 1])).clone()
    again = schedule.run([last], [inputs], (rule.heads, rule.value_size), call)[0][64:]
    assert torch.equal(again, want)
    assert torch.equal(view.at(int(schedule.tables[0, 1])), kept)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "taps", "bias"), [(64, 3, False), (100, 4, True), (37, 2, True)])
def test_short_convolution(way: str, size: int, taps: int, bias: bool, dtype: str) -> None:
    lengths, provider = [70, 1, 33], providers(SHORT_CONV)[way]
    weight = noise(taps, size, seed=50)
    added = noise(size, seed=51) if bias else None
    inputs = [[noise(n, 3 * size, seed=s, dtype=DTYPES[dtype])] for s, n in enumerate(lengths)]

    def results(steps: Any, interval: int) -> list[torch.Tensor]:
        schedule = Schedule(lengths, interval)
        (view,) = schedule.views((taps - 1, size))
        return schedule.run(
            steps,
            inputs,
            (size,),
            lambda packed, plan, out: provider.run(packed[0], weight, added, view, plan, out=out),
        )

    got = results([[(0, 0, 70), (1, 0, 1), (2, 0, 33)]], INTERVAL)
    tolerance = TOLERANCES["short_conv"][dtype]
    for rows, (x,) in zip(got, inputs):
        gate, other, value = x.double().chunk(3, dim=-1)
        padded = torch.cat((torch.zeros(taps - 1, size).double(), gate * value))
        mixed = sum(weight[w].double() * padded[w : w + len(x)] for w in range(taps))
        want = other * (mixed if added is None else mixed + added.double())
        torch.testing.assert_close(
            rows.double(), want, rtol=tolerance.relative, atol=tolerance.absolute
        )
    for chunk, interval in ((1, INTERVAL), (7, 16), (64, 128)):
        again = results(together(lengths, chunk), interval)
        assert all(torch.equal(a, b) for a, b in zip(again, got)), (chunk, interval)
