"""Who makes numbers of the tensors that a checkpoint keeps a weight in.

Which weight is kept how is told by `quant.schemes`; arithmetic is in the files beside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from quire.ops.quantized import QuantizedWeight
from quire.quant.decoders import floats, gguf, integers, sparse
from quire.quant.decoders.pieces import map_rows
from quire.quant.decoders.turned import with_turns
from quire.quant.formats import PLAIN
from quire.quant.schemes import outside
from quire.quant.stored import StoredTensor

Members = Mapping[str, torch.Tensor]
Decoded = torch.Tensor | QuantizedWeight


def decode(members: Members, stored: StoredTensor, dtype: torch.dtype) -> Decoded:
    """The numbers of a weight of stored.shape: codes of stored.format, or floats where there is none.

    members  tensors by role. dtype  of the rows that codes will multiply.
    Raises ValueError for tensors that are not what the checkpoint's settings say.
    """
    if not stored.decoder:
        return members["weight"]
    decoder = DECODERS.get(stored.decoder) or outside.decoder_of(stored.decoder)
    if "mask" in members:
        codes = sparse.spread(members["codes"], members["mask"], stored.shape)
        members = {**members, "codes": codes}
    found = decoder(members, stored, dtype)
    if isinstance(found, QuantizedWeight) and not bool(found.scales.isfinite().all()):
        raise ValueError("some of its scales are not finite numbers; download the file again")
    if isinstance(found, QuantizedWeight) and found.format.inputs == "fixed":
        step, shift = stored.options["inputs"]
        return replace(found, step=step, shift=shift)
    return found


def _turned(members: Members, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    inner: StoredTensor = stored.options["inner"]
    found = decode({role: members[role] for role in inner.members}, inner, dtype)
    numbers = found.dequantized() if isinstance(found, QuantizedWeight) else found
    return with_turns(numbers, stored.options["turns"], members)


def _gguf(members: Members, stored: StoredTensor, dtype: torch.dtype) -> Decoded:
    if "factor" in members:
        factor = members["factor"].view(torch.float32).reshape(())
        inner = replace(stored, format=PLAIN)
        alone = {"blocks": members["blocks"]}
        floats32 = _gguf(alone, inner, torch.float32)
        assert isinstance(floats32, torch.Tensor)
        return floats32.to(torch.float32) * factor
    found = gguf.decode(
        members["blocks"], stored.options["kind"], stored.shape, stored.format, dtype
    )
    return _in_halves(found, stored) if "pairs" in stored.options else found


def _gguf_latent(members: Members, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    """Rows that make keys and values of a latent, by heads: of keys there are columns."""
    parts: dict[str, torch.Tensor] = {}
    for role in ("keys", "values"):
        inner = replace(stored.options[role], format=PLAIN)
        found = _gguf({"blocks": members[role]}, inner, dtype)
        parts[role] = found.dequantized() if isinstance(found, QuantizedWeight) else found
    by_head = torch.cat((parts["keys"].transpose(1, 2), parts["values"]), dim=1)
    return by_head.reshape(stored.shape)


def _number(members: Members, stored: StoredTensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.full(stored.shape, stored.options["value"], dtype=torch.float32)


def _pairs(members: Members, stored: StoredTensor, dtype: torch.dtype) -> Decoded:
    return _in_halves(members["weight"], stored)


def _float8(members: Members, stored: StoredTensor, dtype: torch.dtype) -> Decoded:
    found = floats.float8(members, stored, dtype)
    return _in_halves(found, stored) if "pairs" in stored.options else found


def _in_halves(found: Decoded, stored: StoredTensor) -> Decoded:
    """Rows of each head from pairs that turn together to first halves, then second ones."""

    def halves(rows: torch.Tensor) -> torch.Tensor:
        heads = rows.view(stored.options["pairs"], -1, 2, *rows.shape[1:])
        return heads.transpose(1, 2).reshape(rows.shape)

    return map_rows(found, halves) if isinstance(found, QuantizedWeight) else halves(found)


DECODERS: dict[str, Callable[[Members, StoredTensor, torch.dtype], Decoded]] = {
    "gguf": _gguf,
    "gguf_latent": _gguf_latent,
    "number": _number,
    "pairs": _pairs,
    "gptq": integers.gptq,
    "awq": integers.awq,
    "packed_rows": integers.packed_rows,
    "bytes": integers.signed_bytes,
    "hqq": integers.hqq,
    "middled": integers.middled,
    "turned": _turned,
    "spread": sparse.plain,
    "marlin_24": sparse.marlin_24,
    "rows_of_127": integers.rows_of_127,
    "ternary": integers.ternary,
    "ternary_bytes": integers.ternary_bytes,
    "float8": _float8,
    "float4": floats.float4,
    "microscaled": floats.microscaled,
    "mxfp4_experts": floats.mxfp4_experts,
    "table_blocks": floats.table_blocks,
}
"""By the name that schemes use."""
