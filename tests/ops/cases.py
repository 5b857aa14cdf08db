"""What every operation is tested with: inputs, a call, and the formula in float64.

A case draws its inputs for a number of rows; `rows` of the inputs can be taken apart so that the same
calls serve for values (`test_table.py`) and for independence of rows (`test_rows.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from quire.ops.registry import Provider

Tensors = dict[str, torch.Tensor]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Case:
    """One set of static sizes of one operation.

    draw   (T, dtype) -> the tensors with one row a token.
    fixed  dtype -> tensors that all rows share.
    call   (provider, rows, fixed, out or None) -> result [T, ...]; may change `rows` in place.
    want   (rows, fixed) in float64 -> the formula.
    tolerance  its line in the table of tolerances, where that is not the operation's name.
    """

    label: str
    draw: Callable[[int, torch.dtype], Tensors]
    call: Callable[[Provider, Tensors, Tensors, torch.Tensor | None], torch.Tensor]
    want: Callable[[Tensors, Tensors], torch.Tensor]
    fixed: Callable[[torch.dtype], Tensors] = field(default=lambda dtype: {})
    has_out: bool = True
    tolerance: str | None = None


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Normal numbers in `dtype`."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def rows_of(*widths: int) -> Callable[[int, torch.dtype], Tensors]:
    """Draws x, y, z ... [T, width]."""

    def draw(count: int, dtype: torch.dtype) -> Tensors:
        return {
            name: noise(count, width, seed=seed, dtype=dtype)
            for seed, (name, width) in enumerate(zip("xyz", widths))
        }

    return draw


def embedding(width: int, scale: float) -> Case:
    return Case(
        f"C={width} scale={scale}",
        lambda count, dtype: {"ids": torch.arange(count) * 7 % 50},
        lambda p, rows, fixed, out: p.run(
            rows["ids"],
            p.pack(fixed["table"]),
            scale=scale,
            out=out,  # type: ignore[attr-defined]
        ),
        lambda rows, fixed: fixed["table"][rows["ids"].long()] * scale,
        lambda dtype: {"table": noise(50, width, dtype=dtype)},
    )


def linear(in_size: int, out_size: int, bias: bool, delta: bool) -> Case:
    def draw(count: int, dtype: torch.dtype) -> Tensors:
        rows = {"x": noise(count, in_size, dtype=dtype)}
        return {**rows, "delta": noise(count, out_size, seed=1)} if delta else rows

    def fixed(dtype: torch.dtype) -> Tensors:
        shared = {"weight": (noise(out_size, in_size, seed=2) * in_size**-0.5).to(dtype)}
        return {**shared, "bias": noise(out_size, seed=3, dtype=dtype)} if bias else shared

    def call(p: Any, rows: Tensors, fixed: Tensors, out: torch.Tensor | None) -> torch.Tensor:
        packed = p.pack(fixed["weight"], fixed.get("bias"))
        result: torch.Tensor = p.run(rows["x"], packed, delta=rows.get("delta"), out=out)
        return result

    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        y = rows["x"] @ fixed["weight"].T
        return y + rows.get("delta", torch.zeros(())) + fixed.get("bias", torch.zeros(()))

    return Case(
        f"K={in_size} N={out_size} bias={bias} delta={delta}",
        draw,
        call,
        want,
        fixed,
        tolerance="linear with delta" if delta else None,
    )


def rms_norm(*sizes: int) -> Case:
    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x = rows["x"]
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * fixed["weight"]

    return Case(
        f"C={sizes}",
        lambda count, dtype: {"x": noise(count, *sizes, dtype=dtype)},
        lambda p, rows, fixed, out: p.run(rows["x"], fixed["weight"], eps=1e-6, out=out),
        want,
        lambda dtype: {"weight": noise(sizes[-1], seed=1)},
    )


def add_rms_norm(width: int) -> Case:
    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x = rows["x"]  # already rounded where the operation rounds
        return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * fixed["weight"]

    def draw(count: int, dtype: torch.dtype) -> Tensors:
        x, y = noise(count, width, dtype=dtype), noise(count, width, seed=1, dtype=dtype)
        return {"x": x + y, "addend": y, "before": x}

    return Case(
        f"C={width}",
        draw,
        lambda p, rows, fixed, out: p.run(
            rows["addend"], rows["before"], fixed["weight"], eps=1e-6, out=out
        ),
        want,
        lambda dtype: {"weight": noise(width, seed=2)},
    )


def rms_norm_gated(heads: int, size: int, act: str) -> Case:
    def draw(count: int, dtype: torch.dtype) -> Tensors:
        both = noise(count, 2, heads, size, dtype=dtype)
        return {"x": both[:, 0], "gate": both[:, 1]}

    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x, gate = rows["x"], rows["gate"]
        normed = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * fixed["weight"]
        return normed * torch.sigmoid(gate) * (gate if act == "silu" else 1.0)

    return Case(
        f"H={heads} D={size} {act}",
        draw,
        lambda p, rows, fixed, out: p.run(
            rows["x"], rows["gate"], fixed["weight"], eps=1e-6, act=act, out=out
        ),
        want,
        lambda dtype: {"weight": noise(size, seed=1)},
    )


def mul_softplus(heads: int, size: int) -> Case:
    def draw(count: int, dtype: torch.dtype) -> Tensors:
        both = noise(count, heads, size + 1, dtype=dtype)
        return {"x": both[..., :size].contiguous(), "gate": both[..., size].contiguous()}

    return Case(
        f"H={heads} D={size}",
        draw,
        lambda p, rows, fixed, out: p.run(rows["x"], rows["gate"], out=out),
        lambda rows, fixed: rows["x"] * torch.nn.functional.softplus(rows["gate"])[..., None],
    )


def tell_keys(queries: int, keys: int, size: int, more: int) -> Case:
    scale = float(size**-0.5)

    def draw(count: int, dtype: torch.dtype) -> Tensors:
        heads = noise(count, queries + keys, size, dtype=dtype)
        return {"x": heads, "steps": noise(count, keys, seed=1, dtype=dtype)}

    def run(p: Any, rows: Tensors, fixed: Tensors, out: torch.Tensor | None) -> torch.Tensor:
        if out is None:
            out = rows["x"].new_empty(len(rows["x"]), queries + keys, size + more)
        return p.run(rows["x"], rows["steps"], fixed["rates"], scale=scale, out=out)

    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        steps = torch.nn.functional.softplus(rows["steps"])
        told = torch.cat(
            (torch.full((len(steps), queries), 1 / scale), torch.exp(fixed["rates"] * steps)), 1
        )
        return torch.nn.functional.pad(torch.cat((rows["x"], told[..., None]), -1), (0, more - 1))

    name = f"H={queries} K={keys} D={size}"
    return Case(name, draw, run, want, lambda dtype: {"rates": noise(keys, seed=2)})


def weigh_sets(heads: int, sets: int, size: int) -> Case:
    def draw(count: int, dtype: torch.dtype) -> Tensors:
        ids = (torch.arange(count * 2) * 5 % sets).view(count, 2).to(torch.int32)
        x = noise(count, heads, sets, size, dtype=dtype)
        return {"x": x, "ids": ids, "weights": noise(count, 2, seed=1)}

    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        ones = torch.nn.functional.one_hot(rows["ids"].long(), sets)  # [T, k, E]
        factors = (ones * rows["weights"][..., None]).sum(1)
        return rows["x"] * factors[:, None, :, None]

    return Case(
        f"K={heads} E={sets} D={size}",
        draw,
        lambda p, rows, fixed, out: p.run(rows["x"], rows["ids"], rows["weights"], out=out),
        want,
    )


def layer_norm(*sizes: int, bias: bool) -> Case:
    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x = rows["x"] - rows["x"].mean(-1, keepdim=True)
        normed = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-5)
        return normed * fixed["weight"] + fixed.get("bias", torch.zeros(()))

    def fixed(dtype: torch.dtype) -> Tensors:
        shared = {"weight": noise(*sizes, seed=1)}
        return {**shared, "bias": noise(*sizes, seed=2)} if bias else shared

    return Case(
        f"C={sizes} bias={bias}",
        lambda count, dtype: {"x": noise(count, *sizes, dtype=dtype) + 0.5},
        lambda p, rows, fixed, out: p.run(
            rows["x"], fixed["weight"], fixed.get("bias"), eps=1e-5, out=out
        ),
        want,
        fixed,
    )


FORMULAS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "silu": torch.nn.functional.silu,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.nn.functional.relu,
    "relu2": lambda x: torch.nn.functional.relu(x).square(),
}


def plain_activation(name: str, width: int) -> Case:
    return Case(
        f"{name} F={width}",
        rows_of(width),
        lambda p, rows, fixed, out: p.run(rows["x"], act=name, out=out),
        lambda rows, fixed: FORMULAS[name](rows["x"]),
    )


def activation(name: str, width: int) -> Case:
    return Case(
        f"{name} F={width}",
        rows_of(2 * width),
        lambda p, rows, fixed, out: p.run(rows["x"], act=name, out=out),
        lambda rows, fixed: FORMULAS[name](rows["x"][:, :width]) * rows["x"][:, width:],
    )


def rope(heads: int, head_size: int, rot: int, interleaved: bool) -> Case:
    def draw(count: int, dtype: torch.dtype) -> Tensors:
        return {
            "x": noise(count, heads, head_size, dtype=dtype),
            "at": torch.arange(count) * 5 % 97,
        }

    def table(dtype: torch.dtype) -> Tensors:
        angles = torch.arange(97).unsqueeze(1) / 3.0 ** torch.arange(rot // 2)
        return {"table": torch.cat([angles.cos(), angles.sin()], dim=1)}

    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x, angles = rows["x"], fixed["table"][rows["at"].long()].unsqueeze(1)
        pairs = torch.arange(rot).view(-1, 2) if interleaved else torch.arange(rot).view(2, -1).T
        number = torch.view_as_complex(x[..., pairs].contiguous())
        turn = torch.complex(angles[..., : rot // 2], angles[..., rot // 2 :])
        turned = x.clone()
        turned[..., pairs] = torch.view_as_real(number * turn)
        return turned

    return Case(
        f"H={heads} D={head_size} rot={rot} interleaved={interleaved}",
        draw,
        lambda p, rows, fixed, out: p.run(
            rows["x"], rows["at"], fixed["table"], interleaved=interleaved
        ),
        want,
        table,
        has_out=False,
    )


def qk_rope(q_heads: int, kv_heads: int, head_size: int, rot: int, interleaved: bool) -> Case:
    turned = rope(q_heads + kv_heads, head_size, rot, interleaved)

    def fixed(dtype: torch.dtype) -> Tensors:
        weights = 1 + noise(2, head_size, seed=1) / 8
        return {**turned.fixed(dtype), "q": weights[0], "k": weights[1]}

    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x = rows["x"]
        weights = [fixed["q"]] * q_heads + [fixed["k"]] * kv_heads
        normed = x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6) * torch.stack(weights)
        return turned.want({**rows, "x": normed}, fixed)

    return Case(
        f"H={q_heads} K={kv_heads} D={head_size} rot={rot} interleaved={interleaved}",
        turned.draw,
        lambda p, rows, fixed, out: p.run(
            rows["x"],
            fixed["q"],
            fixed["k"],
            rows["at"],
            fixed["table"],
            num_q_heads=q_heads,
            eps=1e-6,
            interleaved=interleaved,
        ),
        want,
        fixed,
        has_out=False,
    )


def put_rows(p: Provider, rows: Tensors, fixed: Tensors, out: torch.Tensor | None) -> torch.Tensor:
    x, y = rows["x"], rows["y"]
    result: torch.Tensor = p.run(x, torch.arange(len(x), device=x.device).flip(0), y.flip(0))
    return result


def take_rows(p: Provider, rows: Tensors, fixed: Tensors, out: torch.Tensor | None) -> torch.Tensor:
    x = rows["x"]
    result: torch.Tensor = p.run(x, torch.arange(len(x), device=x.device), out=out)
    return result


def standing(rows: Tensors, count: int) -> torch.Tensor:
    """x [T, S * C] as S streams [S, T, C]."""
    return rows["x"].view(len(rows["x"]), count, -1).transpose(0, 1).contiguous()


def lying(streams: torch.Tensor, out: torch.Tensor | None) -> torch.Tensor:
    """Streams [S, T, C] as [T, S * C], in `out` if that is given."""
    found = streams.transpose(0, 1).flatten(1).contiguous()
    return found if out is None else out.copy_(found)


def mix_streams(count: int, width: int) -> Case:
    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        shares = rows["y"].view(-1, count, count)
        x = rows["x"].view(-1, count, width)
        return (x + torch.einsum("tji,tic->tjc", shares, x)).flatten(1)

    return Case(
        f"S={count} C={width}",
        rows_of(count * width, count * count),
        lambda p, rows, fixed, out: lying(p.run(standing(rows, count), rows["y"]), out),
        want,
    )


def correct_streams(count: int, width: int, active: int) -> Case:
    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x = rows["x"].view(-1, count, width)
        news = rows["y"] - x[:, active]
        return (x + news[:, None] * (1 + rows["z"][..., None])).flatten(1)

    return Case(
        f"S={count} C={width}",
        rows_of(count * width, width, count),
        lambda p, rows, fixed, out: lying(
            p.run(standing(rows, count), rows["y"], rows["z"], active=active), out
        ),
        want,
    )


def match_size(width: int) -> Case:
    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x, like = (rows[name].square().mean(-1, keepdim=True) for name in "xy")
        return rows["x"] * (like / x.clamp(min=1e-5)).sqrt()

    return Case(
        f"C={width}",
        rows_of(width, width),
        lambda p, rows, fixed, out: p.run(rows["x"], rows["y"], eps=1e-5, out=out),
        want,
    )


def largest(width: int) -> Case:
    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x = rows["x"]
        cut = x.mean(-1, keepdim=True) + 0.7 * x.std(-1, keepdim=True, unbiased=False)
        return torch.relu(x - cut)

    return Case(
        f"F={width}",
        rows_of(width),
        lambda p, rows, fixed, out: p.run(rows["x"], deviations=0.7, out=out),
        want,
    )


def stream_shares(count: int, rounds: int) -> Case:
    """The softmax and what follows it, from scores of all three kinds."""

    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        read, write, mix = (
            rows["x"] * fixed["scale"].repeat_interleave(torch.tensor(sizes)) + fixed["base"]
        ).split(sizes, dim=-1)
        mix = torch.softmax(mix.view(-1, count, count), -1) + 0.03
        mix = mix / (mix.sum(-2, keepdim=True) + 0.03)
        for _ in range(rounds - 1):
            mix = mix / (mix.sum(-1, keepdim=True) + 0.03)
            mix = mix / (mix.sum(-2, keepdim=True) + 0.03)
        return torch.cat((read.sigmoid() + 0.03, 2 * write.sigmoid(), mix.flatten(1)), -1)

    sizes = [count, count, count * count]
    width = sum(sizes)
    return Case(
        f"S={count} rounds={rounds}",
        lambda rows, dtype: {"x": noise(rows, width)},
        lambda p, rows, fixed, out: p.run(
            rows["x"].clone(), fixed["scale"], fixed["base"], count=count, rounds=rounds, eps=0.03
        ),
        want,
        lambda dtype: {"scale": noise(3, seed=1), "base": noise(width, seed=2)},
        has_out=False,
    )


def read_streams(count: int, width: int) -> Case:
    return Case(
        f"S={count} C={width}",
        lambda rows, dtype: {
            "x": noise(rows, count * width, dtype=dtype),
            "shares": noise(rows, count + 2, seed=1),
        },
        lambda p, rows, fixed, out: p.run(
            rows["x"].view(-1, count, width),
            rows["shares"],
            out=torch.empty_like(rows["x"][:, :width]) if out is None else out,
        ),
        lambda rows, fixed: torch.einsum(
            "ts,tsc->tc", rows["shares"][:, :count], rows["x"].view(-1, count, width)
        ),
    )


def write_streams(count: int, width: int, *, mixes: bool = True) -> Case:
    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        x, shares = rows["x"].view(-1, count, width), rows["shares"]
        mixed = x
        if mixes:
            mix = shares[:, 2 * count :].view(-1, count, count)
            mixed = torch.einsum("tij,tic->tjc", mix, x)
        return (mixed + shares[:, count : 2 * count, None] * rows["y"][:, None]).flatten(1)

    return Case(
        f"S={count} C={width}" + ("" if mixes else " unmixed"),
        lambda rows, dtype: {
            "x": noise(rows, count * width, dtype=dtype),
            "y": noise(rows, width, seed=1, dtype=dtype),
            "shares": noise(rows, count * (count + 2 if mixes else 2), seed=2),
        },
        lambda p, rows, fixed, out: p.run(
            rows["x"].clone().view(-1, count, width), rows["y"], rows["shares"]
        ).flatten(1),
        want,
        has_out=False,
    )


def clamped(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """GPT-OSS's gate with the bound 0.8."""
    gate, up = gate.clamp(max=0.8), up.clamp(-0.8, 0.8)
    return (up + 1.0) * gate * (1.702 * gate).sigmoid()


def unmixed_shares(count: int) -> Case:
    """Shares of streams that are read and written only."""

    def want(rows: Tensors, fixed: Tensors) -> torch.Tensor:
        scale = fixed["scale"].repeat_interleave(count)
        most = torch.tensor([1.0, 1.3]).repeat_interleave(count)
        return most * (rows["x"] * scale + fixed["base"]).sigmoid() + 0.03

    return Case(
        f"S={count} unmixed",
        lambda rows, dtype: {"x": noise(rows, 2 * count)},
        lambda p, rows, fixed, out: p.run(
            rows["x"].clone(),
            fixed["scale"],
            fixed["base"],
            count=count,
            rounds=0,
            eps=0.03,
            most=1.3,
        ),
        want,
        lambda dtype: {"scale": noise(2, seed=1), "base": noise(2 * count, seed=2)},
        has_out=False,
    )


CASES: dict[str, list[Case]] = {
    "stream_shares": [stream_shares(4, 3), stream_shares(2, 20), unmixed_shares(3)],
    "read_streams": [read_streams(4, 37), read_streams(2, 64)],
    "write_streams": [
        write_streams(4, 37),
        write_streams(2, 64),
        write_streams(3, 37, mixes=False),
    ],
    "swiglu_clamped": [
        Case(
            f"F={width}",
            rows_of(2 * width),
            lambda p, rows, fixed, out: p.run(
                rows["x"],
                limit=0.8,
                out=torch.empty_like(rows["x"][:, : rows["x"].shape[1] // 2])
                if out is None
                else out,
            ),
            lambda rows, fixed: clamped(*rows["x"].chunk(2, dim=-1)),
        )
        for width in (64, 37)
    ],
    "limit_gated": [
        Case(
            f"F={width}",
            rows_of(2 * width),
            lambda p, rows, fixed, out: p.run(rows["x"], limit=0.5, gate_limit=0.75, out=out),
            lambda rows, fixed: torch.cat(
                (
                    rows["x"].chunk(2, -1)[0].clamp(max=0.75),
                    rows["x"].chunk(2, -1)[1].clamp(-0.5, 0.5),
                ),
                -1,
            ),
        )
        for width in (64, 37)
    ],
    "mix_streams": [mix_streams(4, 37), mix_streams(2, 64)],
    "correct_streams": [correct_streams(4, 37, 2), correct_streams(2, 64, 0)],
    "match_size": [match_size(64), match_size(1037)],
    "largest": [largest(80), largest(1037)],
    "multiply": [
        Case(
            f"C={width}",
            rows_of(width, width),
            lambda p, rows, fixed, out: p.run(rows["x"], rows["y"], out=out),
            lambda rows, fixed: rows["x"] * rows["y"],
        )
        for width in (64, 1037)
    ],
    "xielu": [
        Case(
            f"F={width}",
            rows_of(width),
            lambda p, rows, fixed, out: p.run(
                rows["x"], rise=0.7, fall=1.2, slope=0.5, least=-1e-6, out=out
            ),
            lambda rows, fixed: (
                0.5 * rows["x"]
                + torch.where(
                    rows["x"] > 0,
                    0.7 * rows["x"].square(),
                    1.2 * (torch.expm1(rows["x"].clamp(max=-1e-6)) - rows["x"]),
                )
            ),
        )
        for width in (64, 1037)
    ],
    "weigh_chosen": [
        Case(
            "E=9",
            lambda count, dtype: {
                "x": noise(count, 3),
                "ids": (torch.arange(count * 3) * 7 % 9).view(count, 3).to(torch.int32),
            },
            lambda p, rows, fixed, out: p.run(rows["x"], rows["ids"], fixed["factors"]),
            lambda rows, fixed: rows["x"] * fixed["factors"][rows["ids"].long()],
            lambda dtype: {"factors": noise(9, seed=1)},
            has_out=False,
        )
    ],
    "tell_keys": [tell_keys(6, 3, 24, 8), tell_keys(1, 1, 37, 1)],
    "weigh_sets": [weigh_sets(3, 6, 8), weigh_sets(1, 9, 37)],
    "embedding": [embedding(8, 1.0), embedding(33, 5.65625)],
    "put_rows": [
        Case("C=9", rows_of(9, 9), put_rows, lambda rows, fixed: rows["y"], has_out=False)
    ],
    "linear": [
        linear(64, 48, bias=False, delta=False),
        linear(97, 33, bias=True, delta=False),
        linear(256, 130, bias=True, delta=True),
        linear(1536, 72, bias=False, delta=True),
    ],
    "rms_norm": [rms_norm(16), rms_norm(3, 80), rms_norm(1000), rms_norm(4096)],
    "add_rms_norm": [add_rms_norm(24), add_rms_norm(1001)],
    "add": [
        Case(
            f"C={width} scale={scale}",
            rows_of(width, width),
            lambda p, rows, fixed, out, s=scale: p.run(rows["x"], rows["y"], scale=s, out=out),  # type: ignore[misc]
            lambda rows, fixed, s=scale: rows["x"] + s * rows["y"],  # type: ignore[misc]
        )
        for width, scale in ((64, 1.0), (37, 0.22))
    ],
    "add_row": [
        Case(
            f"C={width}",
            rows_of(width),
            lambda p, rows, fixed, out: p.run(rows["x"], fixed["row"], out=out),
            lambda rows, fixed: rows["x"] + fixed["row"],
            lambda dtype, n=width: {"row": noise(n, seed=1, dtype=dtype)},  # type: ignore[misc]
        )
        for width in (64, 37)
    ],
    "torch": [
        Case(
            "neg C=37",
            rows_of(37),
            lambda p, rows, fixed, out: p.run(torch.neg, (rows["x"],), {}, out=out),
            lambda rows, fixed: -rows["x"],
        )
    ],
    "add_gated": [
        Case(
            f"C={width}",
            rows_of(width, width, 1),
            lambda p, rows, fixed, out: p.run(
                rows["x"],
                rows["y"],
                rows["z"],
                out=torch.empty_like(rows["x"]) if out is None else out,
            ),
            lambda rows, fixed: rows["x"] + torch.sigmoid(rows["z"]) * rows["y"],
        )
        for width in (64, 1037)
    ],
    "rms_norm_gated": [rms_norm_gated(3, 80, "silu"), rms_norm_gated(1, 1037, "sigmoid")],
    "mul_softplus": [mul_softplus(3, 8)],
    "mul_sigmoid": [
        Case(
            f"C={width}",
            rows_of(width, width),
            lambda p, rows, fixed, out: p.run(rows["x"], rows["y"], out=out),
            lambda rows, fixed: rows["x"] * torch.sigmoid(rows["y"]),
        )
        for width in (64, 1037)
    ],
    "scale": [
        Case(
            "C=37",
            rows_of(37),
            lambda p, rows, fixed, out: p.run(rows["x"], factor=1.7, out=out),
            lambda rows, fixed: rows["x"] * 1.7,
        )
    ],
    "layer_norm": [
        layer_norm(16, bias=True),
        layer_norm(3, 80, bias=False),
        layer_norm(1001, bias=True),
        layer_norm(4096, bias=False),
    ],
    "act": [plain_activation(name, width) for name in FORMULAS for width in (64, 411)],
    "act_mul": [activation(name, width) for name in FORMULAS for width in (64, 411)],
    "soft_cap": [
        Case(
            "C=37",
            rows_of(37),
            lambda p, rows, fixed, out: p.run(rows["x"], cap=1.5, out=out),
            lambda rows, fixed: torch.tanh(rows["x"] / 1.5) * 1.5,
        )
    ],
    "clamp": [
        Case(
            "C=37",
            rows_of(37),
            lambda p, rows, fixed, out: p.run(rows["x"], limit=0.75, out=out),
            lambda rows, fixed: rows["x"].clamp(-0.75, 0.75),
        )
    ],
    "to_float32": [
        Case(
            "C=37",
            rows_of(37),
            lambda p, rows, fixed, out: p.run(rows["x"], out=out),
            lambda rows, fixed: rows["x"],
        )
    ],
    "take_rows": [
        Case(
            "C=37",
            rows_of(37),
            take_rows,
            lambda rows, fixed: rows["x"],
        )
    ],
    "rope": [
        rope(3, 16, 16, False),
        rope(1, 64, 64, True),
        rope(2, 48, 12, False),
        rope(2, 40, 10, True),
        rope(2, 70, 70, False),
        rope(3, 100, 70, True),
    ],
    "qk_rope": [qk_rope(3, 1, 16, 16, False), qk_rope(2, 2, 100, 70, True)],
}


def result_dtype(op: str, dtype: torch.dtype) -> torch.dtype:
    """The dtype of an operation's result."""
    names = ("to_float32", "weigh_chosen", "stream_shares")
    fixed = dict.fromkeys(names, torch.float32)
    return fixed.get(op, dtype)


def wide(tensors: Tensors) -> Tensors:
    """The same numbers in float64."""
    return {name: tensor.to(torch.float64) for name, tensor in tensors.items()}


def poisoned(shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """An `out` full of NaN."""
    return torch.full(shape, math.nan, dtype=dtype)
