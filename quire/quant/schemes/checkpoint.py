"""Checkpoints that come quantized: who reads which method, and the scheme that follows from a checkpoint.

What is made of plain checkpoints is `schemes.online`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from quire.quant.formats import Format, FormatTable
from quire.quant.schemes import outside
from quire.quant.schemes.bitnet import bitnet
from quire.quant.schemes.bitsandbytes import bitsandbytes
from quire.quant.schemes.compressed_tensors import compressed_tensors
from quire.quant.schemes.float8 import float8
from quire.quant.schemes.gptq import auto_round, awq, gptq
from quire.quant.schemes.hqq import hqq
from quire.quant.schemes.microscaling import mxfp4
from quire.quant.schemes.online import SCHEMES, OnlineScheme, online_scheme
from quire.quant.schemes.parts import Infos, Read
from quire.quant.schemes.quark import quark
from quire.quant.schemes.torchao import torchao
from quire.quant.stored import StoredTensor

Reader = Callable[[Mapping[str, Any], Infos, Read], dict[str, StoredTensor]]
"""quantization_config and the tensors of the files to all tensors by their names among plain floats.

Raises ValueError, with what and why, for settings and tensors that are not read.
"""

READERS: dict[str, Reader] = {
    "compressed-tensors": compressed_tensors,
    "fp8": float8,
    "gptq": gptq,
    "awq": awq,
    "bitsandbytes": bitsandbytes,
    "mxfp4": mxfp4,
    "auto-round": auto_round,
    "hqq": hqq,
    "quark": quark,
    "torchao": torchao,
    "bitnet": bitnet,
}
"""By `quant_method`."""

ALIASES = {
    "awq_marlin": "awq",
    "gptq_marlin": "gptq",
    "gptq_marlin_24": "gptq",
    "auto_gptq": "gptq",
    "cpu_awq": "awq",
    "intel/auto-round": "auto-round",
    "inc": "auto-round",
    "fbgemm_fp8": "fp8",
    "ptpc_fp8": "fp8",
    "modelopt": "fp8",
    "modelopt_fp4": "fp8",
}
"""Names of the same checkpoints for other kernels."""

METHODS = ("gguf", *READERS, *ALIASES)
"""Those that need no plug-in."""


@dataclass(frozen=True)
class CheckpointScheme:
    """The formats in which a checkpoint's weights are kept. method  as the checkpoint names it."""

    method: str
    layers: FormatTable = field(default_factory=FormatTable)

    @property
    def head(self) -> FormatTable:
        """The formats of the product that makes logits."""
        return self.layers

    def format_of(self, group: str, name: str = "") -> Format:
        """The format of a parameter by its name; a bias has its weight's, which says how it is kept."""
        return self.layers.of(
            name.removesuffix("bias") + "weight" if name.endswith(".bias") else name
        )

    @property
    def has_few_bits(self) -> bool:
        """Whether there are weights of at most six bits among those of integers."""
        return any(one.has_few_bits for one in self.layers.by_name.values())

    def with_short_rows(self) -> CheckpointScheme:
        """The same with inputs of 8 bits for weights of 2 to 6 bits; for those of 8 where there are no others."""
        only_few, kept = self.has_few_bits, dict(self.layers.by_name)
        for name, one in kept.items():
            if one.has_few_bits or not only_few:
                kept[name] = one.with_short_rows()
        return CheckpointScheme(self.method, FormatTable(kept))

    def __str__(self) -> str:
        """Such as "int4_g32 (168), int8_g32 (1), the rest as floats"."""
        counts: dict[str, int] = {}
        for name, format in self.layers.by_name.items():
            if name.endswith(".weight"):
                counts[format.name] = counts.get(format.name, 0) + 1
        parts = [f"{name} ({count})" for name, count in sorted(counts.items())]
        return ", ".join([*parts, "the rest as floats"])


Scheme = OnlineScheme | CheckpointScheme


def find_scheme(method: str) -> Reader:
    """The reader of a method. Raises ValueError, with those there are, for another."""
    name = ALIASES.get(method, method)
    if name in READERS:
        return READERS[name]
    reader = outside.reader_of(method)
    if reader is None:
        raise ValueError(
            f"quantization_config names the method {method!r}, which this version does not read; read are: "
            f"{', '.join([*METHODS, *outside.names()])}. Take a checkpoint in one of these, or in bfloat16"
        )
    return reader


def scheme_for(
    wanted: str | None,
    method: str | None,
    formats: FormatTable,
    device: str,
    activation_bits: int | None = None,
) -> Scheme:
    """The scheme of a checkpoint: what it comes with, else what `--quantization` makes of it.

    wanted  the setting. method  the checkpoint's own, None for plain floats. On devices other than the CPU
    everything is read as floats. activation_bits  8: inputs of weights of 2 to 6 bits are rounded to as many, or
    those of int8 where there are no such weights.
    Raises ValueError if both are there and differ.
    """
    scheme = _scheme_for(wanted, method, formats, device)
    return scheme.with_short_rows() if activation_bits == 8 else scheme


def _scheme_for(
    wanted: str | None, method: str | None, formats: FormatTable, device: str
) -> Scheme:
    if method is None:
        if wanted in (*METHODS, *outside.names()) and wanted not in SCHEMES:
            raise ValueError(
                f"quantization {wanted!r} is asked for, but the checkpoint holds plain floats; leave it out, "
                f"or make fewer bits of them with one of: {', '.join(SCHEMES)}"
            )
        return online_scheme(wanted)
    same = {method, ALIASES.get(method, method)}
    if wanted is not None and not {wanted, ALIASES.get(wanted, wanted)} & same:
        raise ValueError(
            f"quantization {wanted!r} is asked for, but the checkpoint is quantized as {method!r} already; "
            "leave it out"
        )
    return CheckpointScheme(method, formats if device == "cpu" else FormatTable())
