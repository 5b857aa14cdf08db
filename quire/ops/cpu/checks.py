"""What a native library must get exactly right before it is used: a wrong processor or build shows here.

Small whole numbers in bfloat16, in which products and, with weights of one and zero, attention are exact. Products of
integers add last bits of float32, which go with their rounding to bfloat16.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch

from quire.ops.cpu.structs import DTYPES, NUMBERS, RECORD_STRUCTS, STRUCTS

Run = Callable[..., None]
"""Carries out an operation: its number, its arguments, threads=1."""

_COLUMNS, _DEPTH = 48, 70  # of a weight
_TOKENS, _HEADS, _SIZE, _VALUE_SIZE, _BLOCK = 40, 3, 70, 40, 32  # of an attention with one kv head
_FAR = 256.0
"""A score that leaves all keys beside it, whose scores are 0, without any weight."""


def check(run: Run) -> None:
    """Raises OSError if a library's products or its attention are wrong on this processor."""
    _check_products(run)
    _check_integers(run)
    _check_attention(run)


def _whole(*sizes: int, seed: int = 0) -> torch.Tensor:
    """Random numbers of -1, 0 and 1."""
    random = torch.Generator().manual_seed(seed)
    return torch.randint(-1, 2, sizes, generator=random).to(torch.bfloat16)


def _check_products(run: Run) -> None:
    weight = _whole(_COLUMNS, _DEPTH)
    packed = torch.zeros(64 * 96, dtype=torch.bfloat16)
    sizes = {"N": _COLUMNS, "K": _DEPTH, "dtype": DTYPES["bfloat16"]}
    pack = STRUCTS["pack_linear"](
        weight=weight.data_ptr(), out=packed.data_ptr(), stride=_DEPTH, **sizes
    )
    run(NUMBERS["pack_linear"], pack, threads=1)
    _multiply(run, "linear", packed, weight, sizes, "products")


def _check_integers(run: Run) -> None:
    weight = _whole(_COLUMNS, _DEPTH).to(torch.int8)
    scales, packed = torch.ones(_COLUMNS), torch.zeros(2 * (128 + 96 * 32), dtype=torch.uint8)
    sizes = {"N": _COLUMNS, "K": _DEPTH, "format": 1}
    pack = STRUCTS["pack_quantized"](
        codes=weight.data_ptr(),
        scales=scales.data_ptr(),
        out=packed.data_ptr(),
        stride=_DEPTH,
        **sizes,
    )
    run(NUMBERS["pack_quantized"], pack, threads=1)
    sizes["dtype"] = DTYPES["bfloat16"]
    _multiply(run, "linear_quantized", packed, weight, sizes, "integer products")


def _multiply(
    run: Run,
    operation: str,
    packed: torch.Tensor,
    weight: torch.Tensor,
    sizes: dict[str, int],
    named: str,
) -> None:
    """Products of several numbers of rows with a packed weight, beside torch's."""
    for rows in (1, 5, 16, 17, 40):
        x = _whole(rows, _DEPTH, seed=rows)
        out = torch.empty(rows, _COLUMNS, dtype=torch.bfloat16)
        args = STRUCTS[operation](
            x=x.data_ptr(),
            weight=packed.data_ptr(),
            out=out.data_ptr(),
            rows=rows,
            x_stride=_DEPTH,
            out_stride=_COLUMNS,
            **sizes,
        )
        run(NUMBERS[operation], args, threads=1)
        if not torch.equal(out.float(), x.float() @ weight.float().t()):
            raise OSError(f"its {named} of {rows} rows are wrong on this processor")


def _check_attention(run: Run) -> None:
    """Keys are unit vectors, and a query is one of them: its result is the value of that key."""
    positions = torch.arange(_TOKENS)
    seen = torch.stack([(7 * positions + head) % (positions + 1) for head in range(_HEADS)], 1)
    keys = torch.eye(_SIZE, dtype=torch.bfloat16)[:_TOKENS].contiguous()  # [T, D]
    values = _whole(_TOKENS, _VALUE_SIZE)
    queries = _FAR * keys[seen]  # [T, H, D]
    out = torch.empty(_TOKENS, _HEADS, _VALUE_SIZE, dtype=torch.bfloat16)
    ends, length, table = torch.tensor([[0, _TOKENS], [_TOKENS, 0], [1, 0]], dtype=torch.int32)
    slots = (positions + _BLOCK) % (2 * _BLOCK)
    plan = RECORD_STRUCTS["attention_plan"](
        query_start=ends.data_ptr(),
        seq_lens=length.data_ptr(),
        block_table=table.data_ptr(),
        slot_mapping=slots.data_ptr(),
        table_stride=2,
        num_sequences=1,
        num_tokens=_TOKENS,
    )
    numbers = _BLOCK * (_SIZE + _VALUE_SIZE)  # of a block
    cache = torch.full((2 * numbers,), float("nan"), dtype=torch.bfloat16)
    place = {
        "cache": cache.data_ptr(),
        "plan": ctypes.addressof(plan),
        "slab_bytes": 4 * numbers,
        "block_bytes": 2 * numbers,
        "blocks_per_slab": 2,
        "block_size": _BLOCK,
        "K": 1,
        "D": _SIZE,
        "Dv": _VALUE_SIZE,
        "dtype": DTYPES["bfloat16"],
    }
    write = STRUCTS["attention_write"](
        k=keys.data_ptr(),
        v=values.data_ptr(),
        k_stride=_SIZE,
        k_head_stride=_SIZE,
        v_stride=_VALUE_SIZE,
        v_head_stride=_VALUE_SIZE,
        key_inverse=1.0,
        value_inverse=1.0,
        **place,
    )
    run(NUMBERS["attention_write"], write, threads=1)
    args = STRUCTS["attention"](
        q=queries.data_ptr(),
        out=out.data_ptr(),
        q_stride=_HEADS * _SIZE,
        q_head_stride=_SIZE,
        out_stride=_HEADS * _VALUE_SIZE,
        out_head_stride=_VALUE_SIZE,
        H=_HEADS,
        scale=1.0,
        value_scale=1.0,
        **place,
    )
    run(NUMBERS["attention"], args, threads=1)
    if not torch.equal(out, values[seen]):
        raise OSError("its attention is wrong on this processor")
