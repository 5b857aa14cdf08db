"""Routing and experts: every provider, dtype and format against the formula in float64.

Models made of them are compared with Transformers in tests/models.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from quire.ops.cpu.library import usable, using
from quire.ops.formats import KNOWN, PLAIN, Format, parse
from quire.ops.moe import ADD_IDENTITY, EXPERTS, ROUTE, ROUTE_SPARSE, ExpertSizes, RouteRule
from quire.ops.quantized import QuantizedWeight, round_rows, round_rows_to_bytes
from quire.ops.registry import Signature, load_all, providers
from quire.ops.route_root import ROUTE_ROOT, ROUTE_TOKENS
from quire.ops.tolerances import TOLERANCES
from quire.quant.rounding import quantize
from tests.ops.cases import DTYPES, noise

load_all()
RULES = {
    "mixtral": (8, RouteRule(2), False),
    "olmoe": (64, RouteRule(8, normalize=False), False),
    "odd": (33, RouteRule(5, scoring="sigmoid", normalize=False, scale=0.5), False),
    "kolibri": (33, RouteRule(5, scoring="logit", normalize=False), True),
    "deepseek_v2": (160, RouteRule(6, normalize=False, scale=16.0, groups=8, top_groups=3), False),
    "deepseek_v3": (
        64,
        RouteRule(6, scoring="sigmoid", scale=2.5, groups=8, top_groups=3, group_best=2),
        True,
    ),
}
ROUTERS = [p for p in providers(ROUTE).values() if p.accepts(Signature("float32")) is None]
SPARSE_ROUTERS = [
    p for p in providers(ROUTE_SPARSE).values() if p.accepts(Signature("float32")) is None
]
WIDE = [PLAIN, *(format for format in KNOWN if not format.inputs)]
BYTES = [
    *(format for format in KNOWN if format.inputs),
    *(parse("int4_g32_zp_parts8"), parse("int8_parts8"), parse("int8_g32_half_parts8")),
]
MAKERS = [p for p in providers(EXPERTS).values() if p.accepts(Signature("float32")) is None]
SIZES = {
    "whole": (ExpertSizes(8, 64, 96, "silu"), 2, False),
    "odd": (ExpertSizes(16, 100, 70, "gelu"), 4, False),
    "limited": (ExpertSizes(6, 64, 40, "silu", 0.5), 3, False),
    "limited apart": (ExpertSizes(6, 64, 40, "silu", 0.5, gate_limit=0.8), 3, False),
    "biased": (ExpertSizes(6, 64, 40, "swiglu_clamped", 1.5), 3, True),
    "weighed": (ExpertSizes(6, 100, 40, "silu", weigh_inputs=True), 3, False),
    "without a gate": (ExpertSizes(6, 100, 70, "relu2", gated=False), 3, True),
}


def name_of(provider: Any) -> str:
    return str(provider.name)


def choose(logits: torch.Tensor, rule: RouteRule, bias: torch.Tensor | None) -> list[list[int]]:
    """The experts of each row by plain sorting, in Python."""
    x = logits.double()
    scores = torch.softmax(x, -1) if rule.scoring == "softmax" else torch.sigmoid(x)
    choices = x if rule.scoring == "logit" else scores
    choices = choices if bias is None else choices + bias
    found = []
    for row in choices.tolist():
        each = len(row) // rule.groups
        groups = [row[g * each : (g + 1) * each] for g in range(rule.groups)]
        worth = [sum(sorted(group, reverse=True)[: rule.group_best]) for group in groups]
        kept = sorted(range(rule.groups), key=lambda g: -worth[g])[: rule.top_groups]
        open_to = [e for e in range(len(row)) if e // each in kept]
        found.append(sorted(open_to, key=lambda e: -row[e])[: rule.top_k])
    return found


@pytest.mark.parametrize("provider", ROUTERS, ids=name_of)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", RULES)
def test_routes(provider: Any, dtype: str, name: str) -> None:
    num_experts, rule, has_bias = RULES[name]
    logits = (3 * noise(150, num_experts)).to(DTYPES[dtype])
    bias = 0.1 * noise(num_experts, seed=1) if has_bias else None
    ids = torch.empty(150, rule.top_k, dtype=torch.int32)
    weights = torch.empty(150, rule.top_k)
    provider.run(logits, rule, bias=bias, ids=ids, weights=weights)
    wanted = choose(logits, rule, bias)
    assert ids.tolist() == wanted or dtype != "float32"  # fewer bits have ties, in float64 too
    x = logits.double()
    scores = torch.softmax(x, -1) if rule.scoring == "softmax" else torch.sigmoid(x)
    want = scores.gather(-1, ids.long())
    if rule.normalize:
        want = want / want.sum(-1, keepdim=True)
    tolerance = TOLERANCES["route"][dtype]
    torch.testing.assert_close(
        weights.double(), want * rule.scale, rtol=tolerance.relative, atol=tolerance.absolute
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("jitter", [0.01, 0.3])
@pytest.mark.parametrize("provider", SPARSE_ROUTERS, ids=name_of)
def test_routes_to_two_that_are_weighed_among_those_near_them(
    provider: Any, jitter: float, dtype: str
) -> None:
    logits = (3 * noise(150, 8)).to(DTYPES[dtype])
    logits[0] = torch.tensor([1.0, 2.0, 2.0, 0.0, -1.0, 1.99, 0.5, 2.0]).to(DTYPES[dtype])
    logits[1] = -1.0 - torch.arange(8).to(DTYPES[dtype])  # all below zero
    ids = torch.empty(150, 2, dtype=torch.int32)
    weights = torch.empty(150, 2)
    provider.run(logits, RouteRule(2, scoring="sparse", jitter=jitter), ids=ids, weights=weights)
    tolerance = TOLERANCES["route_sparse"][dtype].relative
    for row, x in enumerate(logits.to(torch.float32).tolist()):
        left = set(range(8))
        for place in range(2):
            best = max(left, key=lambda expert: (x[expert], -expert))
            near = [
                expert
                for expert in left
                if (x[best] - x[expert]) / max(abs(x[expert]), x[best]) <= 2 * jitter
            ]
            want = 1.0 / sum(math.exp(x[expert] - x[best]) for expert in near)
            assert int(ids[row, place]) == best
            assert float(weights[row, place]) == pytest.approx(want, rel=max(tolerance, 1e-6))
            left.remove(best)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normalize", [True, False])
def test_roots_of_softplus_weigh_what_they_or_the_token_choose(normalize: bool, dtype: str) -> None:
    logits = (3 * noise(150, 9)).to(DTYPES[dtype])
    logits[0, 0] = 60.0
    bias, rule = 0.1 * noise(9, seed=1), RouteRule(3, normalize=normalize, scale=1.5)
    tokens = torch.arange(150) * 7 % 20
    table = torch.stack([(torch.arange(3) * 2 + row) % 9 for row in range(20)]).to(torch.int32)
    scores = torch.nn.functional.softplus(logits.double()).sqrt()
    tolerance = TOLERANCES["route_root"][dtype]
    best = torch.sort(scores + bias, descending=True, stable=True).indices[:, :3]
    for op, extra, wanted in (
        (ROUTE_ROOT, {"bias": bias}, best),
        (ROUTE_TOKENS, {"tokens": tokens, "table": table}, table[tokens].long()),
    ):
        ids, weights = torch.empty(150, 3, dtype=torch.int32), torch.empty(150, 3)
        run = providers(op)["reference"].run
        run(logits, rule, ids=ids, weights=weights, **extra)
        assert torch.equal(ids.long(), wanted) or dtype != "float32"
        want = scores.gather(-1, ids.long())
        want = want / want.sum(-1, keepdim=True) if normalize else want
        torch.testing.assert_close(
            weights.double(), want * 1.5, rtol=tolerance.relative, atol=tolerance.absolute
        )
        one, alone = ids[70:71].clone(), weights[70:71].clone()
        extra = {**extra, "tokens": tokens[70:71]} if "tokens" in extra else extra
        run(logits[70:71], rule, ids=one, weights=alone, **extra)
        assert torch.equal(one, ids[70:71]) and torch.equal(alone, weights[70:71])


@pytest.mark.parametrize("provider", ROUTERS, ids=name_of)
def test_equal_choices_go_to_the_lower_expert(provider: Any) -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0, 0.0]])
    ids, weights = torch.empty(1, 4, dtype=torch.int32), torch.empty(1, 4)
    provider.run(logits, RouteRule(4), ids=ids, weights=weights)
    assert ids.tolist() == [[1, 2, 4, 3]]


@pytest.mark.parametrize("provider", ROUTERS, ids=name_of)
def test_a_row_that_is_not_a_number_harms_no_other(provider: Any) -> None:
    logits = noise(3, 16)
    logits[1, 5] = math.nan
    ids, weights = torch.empty(3, 2, dtype=torch.int32), torch.empty(3, 2)
    provider.run(logits, RouteRule(2), ids=ids, weights=weights)
    assert weights[1].isnan().all() and weights[[0, 2]].isfinite().all()
    assert ((ids >= 0) & (ids < 16)).all()


def draw(
    sizes: ExpertSizes, top_k: int, bias: bool, dtype: torch.dtype, rows: int
) -> tuple[list[tuple[torch.Tensor, ...]], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Each expert's weights and biases, x, ids and weights."""
    made = []
    gain = (
        1.0 if sizes.gated else 0.33
    )  # squares are far apart, and tolerances are of numbers near 1
    for e in range(sizes.num_experts):
        wide = noise(sizes.halves * sizes.width, sizes.size, seed=4 * e)
        weights = [
            wide.mul(gain * sizes.size**-0.5).to(dtype),
            noise(sizes.size, sizes.width, seed=4 * e + 1).mul(sizes.width**-0.5).to(dtype),
        ]
        if bias:
            weights.append(noise(sizes.halves * sizes.width, seed=4 * e + 2).mul(gain).to(dtype))
            weights.append(noise(sizes.size, seed=4 * e + 3).to(dtype))
        made.append(tuple(weights))
    generator = torch.Generator().manual_seed(9)
    order = torch.rand(rows, sizes.num_experts, generator=generator).argsort(-1)[:, :top_k]
    shares = torch.rand(rows, top_k, generator=generator)
    return made, noise(rows, sizes.size, seed=8, dtype=dtype), order.to(torch.int32), shares


def stored(weight: torch.Tensor, format: Format) -> Any:
    return weight if format == PLAIN else quantize(weight, format)


def rounded(row: torch.Tensor, weight: Any) -> torch.Tensor:
    """A row [C] float64 as a weight meets it."""
    if not isinstance(weight, QuantizedWeight) or not weight.format.inputs:
        return row
    if not weight.format.has_byte_rows:
        numbers, steps = round_rows(row.float().unsqueeze(0), weight.format)
        return (numbers.double() * steps.double().unsqueeze(-1)).flatten()[: len(row)]
    codes, step = round_rows_to_bytes(row.float().unsqueeze(0), weight)
    return (codes.double() * step.double())[0]


def plain(weight: Any) -> torch.Tensor:
    number = weight.dequantized() if isinstance(weight, QuantizedWeight) else weight
    return number.double()


def formula(
    sizes: ExpertSizes, experts: list[tuple[Any, ...]], x: torch.Tensor, ids: Any, shares: Any
) -> torch.Tensor:
    """The definition in float64, one row after the other, without a rounding in between."""
    acts = {"silu": torch.nn.functional.silu, "gelu": torch.nn.functional.gelu}
    out = torch.zeros(x.shape, dtype=torch.float64)
    for t, row in enumerate(x.double()):
        for e, share in zip(ids[t].tolist(), shares[t].tolist(), strict=True):
            gate_up, down, *biases = experts[e]
            before, share = (share, 1.0) if sizes.weigh_inputs else (1.0, share)
            wide = before * (plain(gate_up) @ rounded(row, gate_up))
            wide = wide + (biases[0].double() if biases else 0)
            gate, up = wide.chunk(2) if sizes.gated else (wide, wide)
            if sizes.limit:
                gate, up = (
                    gate.clamp(max=sizes.gate_limit or sizes.limit),
                    up.clamp(-sizes.limit, sizes.limit),
                )
            if not sizes.gated:
                assert sizes.act == "relu2"
                gated = up.clamp(min=0).square()
            elif sizes.act == "swiglu_clamped":
                gated = (up + 1) * gate * torch.sigmoid(1.702 * gate)
            else:
                gated = acts[sizes.act](gate) * up
            out[t] += share * (
                plain(down) @ rounded(gated, down) + (biases[1].double() if biases else 0)
            )
    return out


@pytest.mark.parametrize("provider", MAKERS, ids=name_of)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("format", [*WIDE[:7], WIDE[-1]], ids=lambda one: one.name)
def test_experts(provider: Any, dtype: str, name: str, format: Format) -> None:
    sizes, top_k, bias = SIZES[name]
    made, x, ids, shares = draw(sizes, top_k, bias, DTYPES[dtype], 70)
    room = provider.room(sizes, dtype=DTYPES[dtype], format=format.name, bias=bias)
    kept = []
    for e, (gate_up, down, *biases) in enumerate(made):
        one = (stored(gate_up, format), stored(down, format), *biases)
        provider.put(room, e, *one)
        kept.append(one)
    got = provider.run(x, ids, shares, room, out=torch.empty_like(x))
    want = formula(sizes, kept, x, ids, shares)
    tolerance = TOLERANCES["experts"][dtype]
    loose = 1.0 if format == PLAIN or dtype != "float32" else 60.0  # rows are rounded to 16 bits
    torch.testing.assert_close(
        got.double(), want, rtol=tolerance.relative, atol=loose * tolerance.absolute
    )


@pytest.mark.parametrize("provider", MAKERS, ids=name_of)
@pytest.mark.parametrize("rows", [1, 70])
@pytest.mark.parametrize("format", [PLAIN, WIDE[1]], ids=lambda one: one.name)
def test_experts_that_are_not_here_add_nothing(provider: Any, rows: int, format: Format) -> None:
    """As if their weights were zero; rows that have no other are zero."""
    sizes, top_k, _ = SIZES["odd"]
    made, x, ids, shares = draw(sizes, top_k, False, torch.float32, rows)
    room = provider.room(sizes, dtype=torch.float32, format=format.name, bias=False)
    for e, (gate_up, down) in enumerate(made):
        provider.put(room, e, stored(gate_up, format), stored(down, format))
    absent = torch.rand(ids.shape, generator=torch.Generator().manual_seed(1)) < 0.4
    absent[0] = True
    want = provider.run(x, ids, shares.masked_fill(absent, 0.0), room, out=torch.empty_like(x))
    beyond = torch.where(absent, ids + sizes.num_experts, ids).to(torch.int32)
    got = provider.run(x, beyond, shares, room, out=torch.empty_like(x))
    assert torch.equal(got, want)
    assert not got[0].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_identities_add_what_they_get(dtype: str) -> None:
    x, out = (noise(40, 50, seed=seed, dtype=DTYPES[dtype]) for seed in (1, 2))
    ids = torch.randint(0, 9, (40, 4), generator=torch.Generator().manual_seed(3))
    shares = noise(40, 4, seed=4)
    want = out.double() + (shares.double() * (ids >= 6)).sum(-1, keepdim=True) * x.double()
    tolerance = TOLERANCES["add_identity"][dtype]
    for provider in providers(ADD_IDENTITY).values():
        got = out.clone()
        alone = out[7:8].clone()
        assert provider.run(x, ids.to(torch.int32), shares, first=6, out=got) is got
        torch.testing.assert_close(
            got.double(), want, rtol=tolerance.relative, atol=tolerance.absolute
        )
        provider.run(x[7:8], ids[7:8].to(torch.int32), shares[7:8], first=6, out=alone)
        assert torch.equal(alone, got[7:8])


@pytest.mark.parametrize("provider", MAKERS, ids=name_of)
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("format", BYTES, ids=lambda one: one.name)
def test_experts_with_rows_of_eight_bits(provider: Any, name: str, format: Format) -> None:
    """Each expert has a scale of its own for its inputs; a last bit may send what it gated to the next code."""
    sizes, top_k, bias = SIZES[name]
    made, x, ids, shares = draw(sizes, top_k, bias, torch.float32, 70)
    room = provider.room(sizes, dtype=torch.float32, format=format.name, bias=bias)
    kept = []
    for e, (gate_up, down, *biases) in enumerate(made):
        own = {"step": 0.02 + 0.005 * e, "shift": -3 * e}
        one = (replace(stored(gate_up, format), **own), replace(stored(down, format), **own))
        provider.put(room, e, *one, *biases)
        kept.append((*one, *biases))
    got = provider.run(x, ids, shares, room, out=torch.empty_like(x)).double()
    want = formula(sizes, kept, x, ids, shares)
    assert (got - want).norm() < 1e-3 * want.norm()
    whole = [(*(plain(weight) for weight in one[:2]), *one[2:]) for one in kept]
    assert (formula(sizes, whole, x, ids, shares) - want).norm() > 3e-3 * want.norm()


@pytest.mark.parametrize("isa", usable())
@pytest.mark.parametrize(
    "format", [*WIDE[:2], BYTES[0], BYTES[-1], WIDE[6], WIDE[-1]], ids=lambda one: one.name
)
def test_a_row_depends_on_itself_alone(isa: str, format: Format) -> None:
    """Alone, among few, among more than are worked on at once, and by one thread or two."""
    sizes, top_k = ExpertSizes(8, 64, 96, "silu"), 3
    made, x, ids, shares = draw(sizes, top_k, False, torch.bfloat16, 1100)
    with using(isa):
        provider = providers(EXPERTS)["cpu"]
        room = provider.room(sizes, dtype=x.dtype, format=format.name, bias=False)  # type: ignore[attr-defined]
        for e, one in enumerate(made):
            provider.put(room, e, *(stored(weight, format) for weight in one))  # type: ignore[attr-defined]

        def run(rows: slice) -> torch.Tensor:
            part = x[rows].contiguous()
            out = torch.empty_like(part)
            provider.run(part, ids[rows].contiguous(), shares[rows].contiguous(), room, out=out)
            return out

        whole = run(slice(None))
        for rows in (slice(0, 1), slice(5, 7), slice(40, 57), slice(600, 900)):
            assert torch.equal(run(rows), whole[rows])
        before = torch.get_num_threads()
        torch.set_num_threads(3 - min(before, 2))
        again = run(slice(None))
        torch.set_num_threads(before)
        assert torch.equal(again, whole)


def test_out_may_be_the_input() -> None:
    sizes, top_k, bias = SIZES["odd"]
    made, x, ids, shares = draw(sizes, top_k, bias, torch.float32, 20)
    for provider in MAKERS:
        room = provider.room(sizes, dtype=torch.float32, format="plain", bias=False)
        for e, one in enumerate(made):
            provider.put(room, e, *one)
        apart = provider.run(x, ids, shares, room, out=torch.empty_like(x))
        same = x.clone()
        assert torch.equal(provider.run(same, ids, shares, room, out=same), apart)
