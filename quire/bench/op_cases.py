"""The single operations that `quire bench ops` measures: what is run, what it moves and what it computes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from quire.ops.attention import PAGED_ATTENTION, AttentionStep, CachePlace
from quire.ops.elementwise import ACT_MUL
from quire.ops.formats import Format
from quire.ops.linear import LINEAR
from quire.ops.norm import ADD_RMS_NORM
from quire.ops.registry import Table
from quire.quant.rounding import quantize

_COLD_BYTES = 256 << 20  # weights are cycled over so many bytes, so that none is still in a cache


@dataclass(frozen=True)
class Case:
    """One line of the report: what is run, and what a run reads or writes and computes."""

    name: str
    size: str
    run: Callable[[], object]
    num_bytes: float
    num_operations: float


def linear(
    choices: Table, dtype: torch.dtype, format: Format, size: tuple[int, int], rows: list[int]
) -> Iterator[Case]:
    """Products with a weight [N, K], the `size`, made of random floats; so many copies that none is near."""
    columns, depth = size
    name = str(dtype).removeprefix("torch.")
    product = choices.bind(LINEAR, name, format=format.name, N=columns, K=depth)
    num_bytes = format.num_bytes(columns, depth, dtype.itemsize)
    copies = max(1, -(-_COLD_BYTES // num_bytes))
    weight = torch.randn(columns, depth).to(dtype)
    kept = weight if format.bits is None else quantize(weight, format)
    packed = [product.provider.pack(copy.deepcopy(kept)) for _ in range(copies)]
    for count in rows:
        x = torch.randn(count, depth).to(dtype)
        out = torch.empty(count, columns, dtype=dtype)
        used = packed if count <= 64 else packed[:2]

        def run(x: Tensor = x, out: Tensor = out, used: list[object] = used) -> None:
            for one in used:
                product(x, one, out=out)

        yield Case(
            "linear" if format.bits is None else f"linear {format.name}",
            f"{count} x {depth} x {columns}",
            run,
            float(len(used) * num_bytes),
            2.0 * len(used) * count * columns * depth,
        )


def attention(choices: Table, dtype: torch.dtype) -> Iterator[Case]:
    """16 query heads over 8 kv heads of 128: decode steps of several contexts, and whole prompts."""
    heads, kv_heads, size, block = 16, 8, 128, 32
    attend = choices.bind(
        PAGED_ATTENTION, str(dtype).removeprefix("torch."), H=heads, K=kv_heads, D=size
    )
    provider = attend.provider
    for batch, queries, context in ((1, 1, 2048), (32, 1, 512), (1, 512, 512), (1, 2048, 2048)):
        blocks = -(-context // block)
        part = block * provider.bytes_per_token(kv_heads, size, size, dtype)
        buffer = torch.zeros(1, batch * blocks * part, dtype=torch.uint8)
        place = CachePlace(
            buffer=buffer,
            block_size=block,
            blocks_per_slab=batch * blocks,
            block_bytes=part,
            layer_offset=0,
        )
        cache = provider.view(place, kv_heads, size, size, dtype)
        plan = provider.new_plan(
            block_size=block,
            blocks_per_slab=batch * blocks,
            window=None,
            device=torch.device("cpu"),
        )
        table_of_blocks = np.arange(batch * blocks, dtype=np.int32).reshape(batch, blocks)
        steps = [context] if queries == 1 else []
        for count in [*steps, queries]:  # a decode step needs a written cache
            first = context - count
            slots = (np.arange(batch) * blocks * block)[:, None] + np.arange(first, context)
            step = AttentionStep(
                query_start=np.arange(batch + 1, dtype=np.int32) * count,
                seq_lens=np.full(batch, context, dtype=np.int32),
                block_table=table_of_blocks,
                slot_mapping=slots.reshape(-1).astype(np.int64),
            )
            provider.fill(plan, step)
            k = torch.randn(batch * count, kv_heads, size).to(dtype)
            attend.call("write", k, k, cache, plan)
        q = torch.randn(batch * queries, heads, size).to(dtype)
        out = torch.empty_like(q)

        def run(q: Tensor = q, out: Tensor = out, cache: Any = cache, plan: Any = plan) -> None:
            attend(q, cache, plan, scale=size**-0.5, window=None, softcap=0.0, sinks=None, out=out)

        seen = batch * (queries * context - queries * (queries - 1) / 2)
        yield Case(
            "attention",
            f"{batch} x {queries} over {context}",
            run,
            float(buffer.numel()),
            4.0 * seen * heads * size,
        )


def norms(choices: Table, dtype: torch.dtype, rows: list[int]) -> Iterator[Case]:
    """The fused addition and norm of 1,024 channels."""
    width = 1024
    norm = choices.bind(ADD_RMS_NORM, str(dtype).removeprefix("torch."), C=width)
    weight = torch.ones(width)
    for count in rows:
        x, residual = (torch.randn(count, width).to(dtype) for _ in range(2))
        out = torch.empty_like(x)

        def run(x: Tensor = x, r: Tensor = residual, out: Tensor = out) -> None:
            norm(x, r, weight, eps=1e-6, out=out)

        yield Case(
            "add_rms_norm",
            f"{count} x {width}",
            run,
            4.0 * count * width * dtype.itemsize,
            5.0 * count * width,
        )


def act_mul(choices: Table, dtype: torch.dtype, rows: list[int]) -> Iterator[Case]:
    """SiLU of one half of 6,144 channels times the other."""
    width = 3072
    act = choices.bind(ACT_MUL, str(dtype).removeprefix("torch."), F=width)
    for count in rows:
        x = torch.randn(count, 2 * width).to(dtype)
        out = torch.empty(count, width, dtype=dtype)

        def run(x: Tensor = x, out: Tensor = out) -> None:
            act(x, act="silu", out=out)

        yield Case(
            "act_mul",
            f"{count} x {width}",
            run,
            3.0 * count * width * dtype.itemsize,
            6.0 * count * width,
        )
