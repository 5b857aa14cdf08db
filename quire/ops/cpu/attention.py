"""Paged attention by the native kernels: the cache in their order of numbers, and calls of them.

The order itself is csrc/ops/attention_cache.h's; definition and messages are `ops.attention`'s.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from quire.ops.attention import (
    AttentionStep,
    CachePlace,
    PagedAttentionBase,
    check_heads,
    check_window,
)
from quire.ops.cpu.library import native, refuses
from quire.ops.cpu.structs import CACHE_FORMATS, DTYPES, NUMBERS, RECORD_STRUCTS, STRUCTS
from quire.ops.registry import Provider, Signature, register

_PLAIN = PagedAttentionBase()
_ATTENTION = NUMBERS["attention"]
_WRITE = NUMBERS["attention_write"]
_Record = RECORD_STRUCTS["attention_plan"]
_Args = STRUCTS["attention"]
_WriteArgs = STRUCTS["attention_write"]


@dataclass(frozen=True)
class CpuCache:
    """One layer's part of every block; the bytes stay where `place.buffer` has them.

    dtype      of keys and values as they come, and of queries. format: how they are stored.
    templates  argument structs whose step's pointers are still to be set, by what they depend on.
    """

    place: CachePlace
    num_kv_heads: int
    head_size: int
    value_size: int
    dtype: torch.dtype
    format: str = "plain"
    templates: dict[Any, ctypes.Structure] = field(default_factory=dict)

    def sizes(self) -> dict[str, int]:
        """The fields that both operations have."""
        place = self.place
        return {
            "cache": place.buffer.data_ptr() + place.layer_offset,
            "slab_bytes": place.buffer.shape[1],
            "block_bytes": place.block_bytes,
            "blocks_per_slab": place.blocks_per_slab,
            "block_size": place.block_size,
            "K": self.num_kv_heads,
            "D": self.head_size,
            "Dv": self.value_size,
            "dtype": DTYPES[str(self.dtype).removeprefix("torch.")],
            "format": CACHE_FORMATS[self.format],
        }

    def check(self, name: str, tensor: torch.Tensor) -> None:
        """Raises ValueError unless a tensor [..., D] has the cache's dtype and whole rows."""
        if tensor.dtype != self.dtype or tensor.stride(2) != 1:
            raise ValueError(
                f"{name} is {tensor.dtype} with strides {tensor.stride()}: the cache holds "
                f"{self.dtype}, and the numbers of a head must lie side by side"
            )


class CpuPlan:
    """A step behind a record whose address does not move; its arrays are kept by reference."""

    def __init__(self, window: int | None) -> None:
        self.window = window
        self.record: Any = _Record()
        self.address = ctypes.addressof(self.record)
        self._arrays: tuple[npt.NDArray[Any], ...] = ()

    def fill(self, step: AttentionStep) -> None:
        """Points the record at a step."""
        table = step.block_table
        if table.dtype != np.int32 or (table.shape[1] > 1 and table.strides[1] != 4):
            table = np.ascontiguousarray(table, dtype=np.int32)
        arrays = (
            np.ascontiguousarray(step.query_start, dtype=np.int32),
            np.ascontiguousarray(step.seq_lens, dtype=np.int32),
            table,
            np.ascontiguousarray(step.slot_mapping, dtype=np.int64),
        )
        record = self.record
        record.query_start, record.seq_lens, record.block_table, record.slot_mapping = (
            array.__array_interface__["data"][0] for array in arrays
        )
        record.table_stride = table.strides[0] // 4
        record.num_sequences = len(arrays[1])
        record.num_tokens = len(arrays[3])
        self._arrays = arrays

    def check(self) -> None:
        """Raises ValueError if there was no step yet."""
        if not self._arrays:
            raise ValueError("an attention plan is used before it was filled")


class CacheProvider(Provider):
    """Views of a cache, plans and writing: what all operations over one share.

    A block takes the bytes of the plain layout; a block copied elsewhere keeps its meaning.
    """

    name = "cpu"

    def accepts(self, signature: Signature) -> str | None:
        return refuses(signature, formats=tuple(CACHE_FORMATS))

    def bytes_per_token(
        self,
        num_kv_heads: int,
        head_size: int,
        value_size: int,
        dtype: torch.dtype,
        format: str = "plain",
    ) -> int:
        """Bytes that one token of one layer takes in the cache."""
        return _PLAIN.bytes_per_token(num_kv_heads, head_size, value_size, dtype, format)

    def view(
        self,
        place: CachePlace,
        num_kv_heads: int,
        head_size: int,
        value_size: int,
        dtype: torch.dtype,
        format: str = "plain",
    ) -> CpuCache:
        """One layer's blocks inside the slabs.

        Raises ValueError if bytes are no multiple of the element's, the part does not fit, or
        blocks are not of 8, 16, 32 ... slots.
        """
        _PLAIN.view(place, num_kv_heads, head_size, value_size, dtype, format)
        size = place.block_size
        if size < 8 or size & (size - 1):
            raise ValueError(f"blocks of {size} slots: the size must be a power of two from 8 on")
        return CpuCache(place, num_kv_heads, head_size, value_size, dtype, format)

    def new_plan(
        self, *, block_size: int, blocks_per_slab: int, window: int | None, device: torch.device
    ) -> CpuPlan:
        """An empty plan for a cache group."""
        return CpuPlan(window)

    def fill(self, plan: CpuPlan, step: AttentionStep) -> None:
        """Takes over a step; its arrays are kept by reference, nothing is computed."""
        plan.fill(step)

    def write(
        self,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: CpuCache,
        plan: CpuPlan,
        *,
        inverses: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        """Stores the step's keys [T, K, D] and values [T, K, Dv] in their slots.

        inverses  what keys and values are multiplied with before they become codes without scales.
        """
        native().run(*self.native_write(k, v, cache, plan, inverses=inverses))

    def native_write(
        self,
        k: torch.Tensor,
        v: torch.Tensor,
        cache: CpuCache,
        plan: CpuPlan,
        *,
        inverses: tuple[float, float] = (1.0, 1.0),
    ) -> tuple[int, ctypes.Structure]:
        """The call that `write` makes; it may be repeated after the plan was filled again.

        k, v  in the cache's dtype; tokens and heads may be strided.
        """
        plan.check()
        cache.check("k", k)
        cache.check("v", v)
        template = cache.templates.get("write")
        if template is None:
            template = cache.templates["write"] = _WriteArgs(**cache.sizes())
        args: Any = _WriteArgs.from_buffer_copy(template)
        args.k, args.v, args.plan = k.data_ptr(), v.data_ptr(), plan.address
        args.key_inverse, args.value_inverse = inverses
        args.k_stride, args.k_head_stride, _ = k.stride()
        args.v_stride, args.v_head_stride, _ = v.stride()
        return _WRITE, args


@register
class PagedAttentionCpu(CacheProvider):
    op = "paged_attention"

    def run(
        self,
        q: torch.Tensor,
        cache: CpuCache,
        plan: CpuPlan,
        *,
        scale: float,
        window: int | None = None,
        softcap: float = 0.0,
        sinks: torch.Tensor | None = None,
        slopes: torch.Tensor | None = None,
        biases: torch.Tensor | None = None,
        bidirectional: bool = False,
        chunked: bool = False,
        value_scale: float = 1.0,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As the reference: q [T, H, D] to [T, H, Dv] in q's dtype, which is the cache's.

        Accumulated in float32. In bfloat16 the weights of the softmax are rounded to bfloat16 before
        they meet the values, and their sum is that of the rounded ones. Scales of a cache of codes
        multiply scores, and weights before that rounding; the sum is then of the plain weights.
        slopes         [H] float32, each key's score loses slope * |key position - query position|.
        biases         [H, 2 M + 1] float32, it gains the number at M + that distance, with its sign, cut to -M ... M.
        bidirectional  whether a query sees the keys after it too; a window then counts both ways.
        chunked        the window does not move: a query sees its own stretch of `window` positions.
        value_scale    a factor of the result, before it is rounded.
        """
        if out is None:
            out = q.new_empty(*q.shape[:2], cache.value_size)
        native().run(
            *self.native(
                q,
                cache,
                plan,
                scale=scale,
                window=window,
                softcap=softcap,
                sinks=sinks,
                slopes=slopes,
                biases=biases,
                bidirectional=bidirectional,
                chunked=chunked,
                value_scale=value_scale,
                out=out,
            )
        )
        return out

    def native(
        self,
        q: torch.Tensor,
        cache: CpuCache,
        plan: CpuPlan,
        *,
        scale: float,
        out: torch.Tensor,
        window: int | None = None,
        softcap: float = 0.0,
        sinks: torch.Tensor | None = None,
        slopes: torch.Tensor | None = None,
        biases: torch.Tensor | None = None,
        bidirectional: bool = False,
        chunked: bool = False,
        value_scale: float = 1.0,
    ) -> tuple[int, ctypes.Structure]:
        """The call that `run` makes; it may be repeated after the plan was filled again.

        q and out  tokens and heads may be strided. sinks, slopes, biases  contiguous float32.
        """
        plan.check()
        cache.check("q", q)
        key = (q.shape[1], scale, window, softcap, bidirectional, chunked, plan.window)
        template = cache.templates.get(key)
        if template is None:
            template = cache.templates[key] = self._template(q.shape[1], cache, plan, key)
        args: Any = _Args.from_buffer_copy(template)
        args.value_scale = value_scale
        args.q, args.out, args.plan = q.data_ptr(), out.data_ptr(), plan.address
        args.q_stride, args.q_head_stride, _ = q.stride()
        args.out_stride, args.out_head_stride, _ = out.stride()
        if sinks is not None:
            args.sinks = _address("sinks", sinks)
        if slopes is not None:
            args.slopes = _address("slopes", slopes)
        if biases is not None:
            args.slopes, args.farthest = _address("biases", biases), biases.shape[1] // 2
        return _ATTENTION, args

    def _template(
        self, num_heads: int, cache: CpuCache, plan: CpuPlan, key: tuple[Any, ...]
    ) -> ctypes.Structure:
        _, scale, window, softcap, bidirectional, chunked, _ = key
        check_heads(num_heads, cache.num_kv_heads)
        check_window(window, plan.window)
        return _Args(
            **cache.sizes(),
            H=num_heads,
            scale=scale,
            window=window or 0,
            softcap=softcap,
            bidirectional=bidirectional,
            chunked=chunked,
        )


def _address(name: str, tensor: torch.Tensor) -> int:
    if tensor.dtype != torch.float32 or not tensor.is_contiguous():
        raise ValueError(f"{name} is {tensor.dtype}: it must be contiguous float32")
    return tensor.data_ptr()
