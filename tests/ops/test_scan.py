"""The operations of recurrent mixers without matrices: every provider and instruction set against float64.

And their bits: chunks, company, threads and blocks change none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from typing import Any

import pytest
import torch

from quire.ops.cpu import library
from quire.ops.matrix_memory import MATRIX_MEMORY
from quire.ops.registry import Signature, load_all, providers
from quire.ops.scan import (
    CAUSAL_CONV,
    GATED_LRU,
    GROUP_NORM_GATED,
    KINDS,
    SELECTIVE_SCAN,
    SSD_SCAN,
)
from quire.ops.time_mix import TOKEN_SHIFT, WKV
from quire.ops.tolerances import TOLERANCES
from tests.ops.cases import DTYPES, noise
from tests.ops.recurrent_cases import Schedule, in_order, together

load_all()
WAYS = ["reference", *library.usable()]
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


@dataclass(frozen=True)
class Scan:
    """One operation at some sizes.

    state, out  shapes of its state and of a token's result.
    draw        (length, dtype, seed) -> what a sequence gives it.
    call        (provider, packed tensors, view, plan, out).
    formula     tensors of a sequence in float64 -> [T, *out], token by token.
    """

    op: Any
    state: tuple[int, ...]
    out: tuple[int, ...]
    draw: Callable[[int, torch.dtype, int], list[torch.Tensor]]
    call: Callable[..., object]
    formula: Callable[[list[torch.Tensor]], torch.Tensor]


def soft(x: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 30, x, torch.log1p(torch.exp(x.clamp(max=30))))


def conv(channels: int, width: int, *, bias: bool, act: str) -> Scan:
    weight, added = noise(width, channels, seed=1), noise(channels, seed=2) if bias else None

    def formula(inputs: list[torch.Tensor]) -> torch.Tensor:
        padded = torch.cat([torch.zeros(width - 1, channels).double(), inputs[0]])
        sums = sum(padded[w : w + len(inputs[0])] * weight[w].double() for w in range(width))
        sums = sums + (0.0 if added is None else added.double())
        return sums * torch.sigmoid(sums) if act == "silu" else sums

    return Scan(
        CAUSAL_CONV,
        (width - 1, channels),
        (channels,),
        lambda length, dtype, seed: [noise(length, channels, seed=seed, dtype=dtype)],
        lambda provider, packed, view, plan, out: provider.run(
            packed[0], weight, added, view, plan, act=act, out=out
        ),
        formula,
    )


def ssd(H: int, P: int, N: int, G: int, limits: tuple[float, float] = (0.0, inf)) -> Scan:
    bias, skip = noise(H, seed=1), noise(H, seed=2)
    decay = -0.3 * torch.exp(noise(H, seed=3))

    def draw(length: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
        shapes = ((H, P), (G, N), (G, N), (H,))
        return [noise(length, *one, seed=seed + i, dtype=dtype) for i, one in enumerate(shapes)]

    def formula(inputs: list[torch.Tensor]) -> torch.Tensor:
        x, write, read, steps = inputs
        state, found = torch.zeros(H, N, P).double(), []
        for t in range(len(x)):
            step = soft(steps[t] + bias.double()).clamp(*limits)
            for h in range(H):
                g = h // (H // G)
                state[h] = state[h] * torch.exp(step[h] * decay[h].double())
                state[h] += torch.outer(write[t, g], step[h] * x[t, h])
                found.append(read[t, g] @ state[h] + skip[h].double() * x[t, h])
        return torch.stack(found).view(len(x), H, P)

    return Scan(
        SSD_SCAN,
        (H, N, P),
        (H, P),
        draw,
        lambda provider, packed, view, plan, out: provider.run(
            *packed, bias, decay, skip, view, plan, limits=limits, out=out
        ),
        formula,
    )


def selective(D: int, N: int) -> Scan:
    bias, skip = noise(D, seed=1), noise(D, seed=2)
    decay = -0.3 * torch.exp(noise(N, D, seed=3))

    def draw(length: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
        shapes = ((D,), (N,), (N,), (D,))
        return [noise(length, *one, seed=seed + i, dtype=dtype) for i, one in enumerate(shapes)]

    def formula(inputs: list[torch.Tensor]) -> torch.Tensor:
        x, write, read, steps = inputs
        state, found = torch.zeros(N, D).double(), []
        for t in range(len(x)):
            step = soft(steps[t] + bias.double())
            state = state * torch.exp(step * decay.double()) + torch.outer(write[t], step * x[t])
            found.append(read[t] @ state + skip.double() * x[t])
        return torch.stack(found)

    return Scan(
        SELECTIVE_SCAN,
        (N, D),
        (D,),
        draw,
        lambda provider, packed, view, plan, out: provider.run(
            *packed, bias, decay, skip, view, plan, out=out
        ),
        formula,
    )


def shift(channels: int, ways: int) -> Scan:
    shares = noise(ways, channels, seed=1)

    def formula(inputs: list[torch.Tensor]) -> torch.Tensor:
        (x,), wide = inputs, shares.double()
        before = torch.cat([torch.zeros(1, channels).double(), x[:-1]])
        return torch.stack([wide[m] * x + (1 - wide[m]) * before for m in range(ways)], dim=1)

    return Scan(
        TOKEN_SHIFT,
        (1, channels),
        (ways, channels),
        lambda length, dtype, seed: [noise(length, channels, seed=seed, dtype=dtype)],
        lambda provider, packed, view, plan, out: provider.run(
            packed[0], shares, view, plan, out=out
        ),
        formula,
    )


def wkv(D: int, loud: float) -> Scan:
    """Keys of `loud`: e to a hundred is no float32, but what it weighs is."""
    decay, first = -torch.exp(noise(D, seed=1)), noise(D, seed=2)

    def draw(length: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
        key, value, gate = (noise(length, D, seed=seed + i) for i in range(3))
        return [one.to(dtype) for one in (loud * key, value, gate)]

    def formula(inputs: list[torch.Tensor]) -> torch.Tensor:
        key, value, gate = inputs
        total, weight, found = torch.zeros(D).double(), torch.zeros(D).double(), []
        for t in range(len(key)):
            own = torch.exp(first.double() + key[t])
            found.append(torch.sigmoid(gate[t]) * (total + own * value[t]) / (weight + own))
            total = torch.exp(decay.double()) * total + torch.exp(key[t]) * value[t]
            weight = torch.exp(decay.double()) * weight + torch.exp(key[t])
        return torch.stack(found)

    return Scan(
        WKV,
        (3, D),
        (D,),
        draw,
        lambda provider, packed, view, plan, out: provider.run(
            *packed, decay, first, view, plan, out=out
        ),
        formula,
    )


def lru(H: int, W: int) -> Scan:
    bias, rate = noise(H, 2 * W, seed=1), -8 * soft(noise(H * W, seed=2))

    def draw(length: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
        shapes = ((H * W,), (H, 2 * W))
        return [noise(length, *one, seed=seed + i, dtype=dtype) for i, one in enumerate(shapes)]

    def formula(inputs: list[torch.Tensor]) -> torch.Tensor:
        x, gates = inputs
        opened = torch.sigmoid(gates + bias.double()).view(len(x), H, 2, W)
        feed, keep = opened[:, :, 0].reshape(len(x), -1), opened[:, :, 1].reshape(len(x), -1)
        found = [x[0] * feed[0]]
        for t in range(1, len(x)):
            kept = torch.exp(rate.double() * keep[t])
            found.append(kept * found[-1] + (1 - kept**2).sqrt() * x[t] * feed[t])
        return torch.stack(found)

    return Scan(
        GATED_LRU,
        (1, H * W),
        (H * W,),
        draw,
        lambda provider, packed, view, plan, out: provider.run(
            *packed, bias, rate, view, plan, out=out
        ),
        formula,
    )


def memory(H: int, K: int, V: int) -> Scan:
    def draw(length: int, dtype: torch.dtype, seed: int) -> list[torch.Tensor]:
        shapes = ((H, K), (H, K), (H, V), (2 * H,))
        return [noise(length, *one, seed=seed + i, dtype=dtype) for i, one in enumerate(shapes)]

    def formula(inputs: list[torch.Tensor]) -> torch.Tensor:
        q, k, v, gates = inputs
        matrix, sums = torch.zeros(H, K, V).double(), torch.zeros(H, K).double()
        most, found = torch.zeros(H).double(), []
        for t in range(len(q)):
            enters, stays = gates[t].view(2, H)
            kept, added = torch.sigmoid(stays), torch.exp(enters)
            most = torch.maximum(most + torch.log(kept), enters)
            matrix = kept.view(H, 1, 1) * matrix
            matrix += added.view(H, 1, 1) * k[t].unsqueeze(2) * v[t].unsqueeze(1)
            sums = kept.view(H, 1) * sums + added.view(H, 1) * k[t]
            query = q[t] / K**0.5
            weight = torch.maximum((query * sums).sum(1).abs(), torch.ones(H).double())
            read = torch.einsum("hk,hkv->hv", query, matrix)
            found.append(read / (weight + 1e-3 * torch.exp(most)).unsqueeze(1))
        return torch.stack(found)

    return Scan(
        MATRIX_MEMORY,
        (H, K + 1, V + 1),
        (H, V),
        draw,
        lambda provider, packed, view, plan, out: provider.run(
            *packed, view, plan, eps=1e-3, out=out
        ),
        formula,
    )


SCANS = {
    "conv": conv(100, 4, bias=True, act="silu"),
    "conv_short": conv(37, 2, bias=False, act="none"),
    "conv_three": conv(64, 3, bias=True, act="silu"),
    "ssd": ssd(4, 64, 32, 2),
    "ssd_odd": ssd(3, 37, 19, 1, limits=(0.4, 1.1)),
    "ssd_small": ssd(6, 8, 7, 3),
    "selective": selective(48, 16),
    "selective_odd": selective(37, 5),
    "shift": shift(100, 3),
    "shift_odd": shift(37, 2),
    "wkv": wkv(48, 1.0),
    "wkv_loud": wkv(37, 60.0),
    "lru": lru(3, 32),
    "lru_odd": lru(2, 37),
    "memory": memory(2, 16, 32),
    "memory_odd": memory(3, 7, 11),
}


def answers(
    way: str, name: str, dtype: torch.dtype, lengths: list[int], steps: Any, interval: int
) -> list[torch.Tensor]:
    scan = SCANS[name]
    schedule = Schedule(lengths, interval)
    (view,) = schedule.views(scan.state)
    inputs = [scan.draw(length, dtype, 10 * seed) for seed, length in enumerate(lengths)]
    provider = providers(scan.op)[way]
    return schedule.run(
        steps,
        inputs,
        scan.out,
        lambda packed, plan, out: scan.call(provider, packed, view, plan, out),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SCANS)
def test_values(way: str, name: str, dtype: str) -> None:
    scan, lengths = SCANS[name], [70, 1, 33]
    tolerance = TOLERANCES[scan.op.name][dtype]
    steps = [[(0, 0, 40), (1, 0, 1), (2, 0, 33)], [(0, 40, 70)]]
    got = answers(way, name, DTYPES[dtype], lengths, steps, INTERVAL)
    for number, length in enumerate(lengths):
        inputs = [one.double() for one in scan.draw(length, DTYPES[dtype], 10 * number)]
        torch.testing.assert_close(
            got[number].double(),
            scan.formula(inputs),
            rtol=tolerance.relative,
            atol=tolerance.absolute,
        )


@pytest.mark.parametrize("name", SCANS)
def test_neither_chunks_nor_company_nor_blocks_nor_threads_change_a_bit(
    way: str, name: str, threads: None
) -> None:
    dtype = torch.bfloat16
    whole = answers(way, name, dtype, [70], in_order([70]), INTERVAL)[0]
    for chunks in ([1] * 70, [32, 32, 6], [5, 40, 25], [69, 1]):
        for interval in (INTERVAL, 16, 128):
            got = answers(way, name, dtype, [70], in_order(chunks), interval)[0]
            assert torch.equal(got, whole), (chunks[:3], interval)
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        many = answers(way, name, dtype, [70, 9, 50], together([70, 9, 50], 13), INTERVAL)
        assert torch.equal(many[0], whole), f"{count} threads"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("groups", [1, 4])
def test_gated_norms(way: str, kind: str, groups: int, dtype: str) -> None:
    tolerance = TOLERANCES["group_norm_gated"][dtype]
    both = noise(9, 2 * 148, seed=4, dtype=DTYPES[dtype])
    x, gate = both[:, :148], both[:, 148:]
    weight = noise(148, seed=5)
    share = gate.double() * torch.sigmoid(gate.double())
    wanted = x.double() * (1.0 if kind == "norm_then_gate" else share)
    if kind != "none":
        parts = wanted.view(9, groups, -1)
        wanted = (parts * (parts.square().mean(-1, keepdim=True) + 0.02).rsqrt()).view(9, -1)
        wanted = wanted * weight.double() * (share if kind == "norm_then_gate" else 1.0)
    run = providers(GROUP_NORM_GATED)[way].run
    options = {"eps": 0.02, "groups": groups, "kind": kind}
    got = run(x, gate, None if kind == "none" else weight, **options, out=torch.empty_like(x))
    torch.testing.assert_close(
        got.double(), wanted, rtol=tolerance.relative, atol=tolerance.absolute
    )
    one = run(
        x[3:4], gate[3:4], None if kind == "none" else weight, **options, out=x.new_empty(1, 148)
    )
    assert torch.equal(one, got[3:4])


def test_a_longer_convolution_is_left_to_the_reference() -> None:
    refusal = providers(CAUSAL_CONV)["cpu"].accepts(Signature("float32", {"C": 8, "W": 9}))
    assert refusal is not None and "2 to 4" in refusal
