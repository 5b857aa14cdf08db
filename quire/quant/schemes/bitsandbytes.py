"""bitsandbytes: int8 with a largest magnitude for each row, and 4-bit numbers of a table, block by block.

Numbers are made in `quant.decoders.floats`. Source: how the library writes its state.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from typing import Any

from quire.quant.formats import Format
from quire.quant.schemes.parts import Infos, Read, collect, member
from quire.quant.stored import StoredTensor, TensorInfo

_STATE = ".quant_state.bitsandbytes__"
_MAX_STATE = 1 << 16


def bitsandbytes(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
    """The weights of a checkpoint that was saved quantized."""
    found: dict[str, StoredTensor] = {}
    left: dict[str, TensorInfo] = {}
    for name, info in infos.items():
        stem, _, kind = name.rpartition(".")
        if info.element == "I8" and kind == "weight" and len(info.shape) == 2:
            rows = info.shape[0]
            found[name] = StoredTensor(
                (rows, info.shape[1]),
                {"codes": name, "scales": member(infos, f"{stem}.SCB", (rows,), ("F32",))},
                decoder="rows_of_127",
                format=Format("int8"),
            )
        elif _STATE in name:
            weight = name.partition(_STATE)[0]
            found[weight] = _four_bits(infos, weight, name, read)
        elif kind != "weight_format":
            left[name] = info
    return collect(left, found)


def _four_bits(infos: Infos, name: str, state_name: str, read: Read) -> StoredTensor:
    if infos[state_name].element != "U8" or prod(infos[state_name].shape) > _MAX_STATE:
        raise ValueError(f"tensor {state_name!r} is too large for a state")
    try:
        state = json.loads(read(state_name))
        shape = tuple(int(size) for size in state["shape"])
        block, inner = int(state["blocksize"]), state.get("nested_blocksize")
        offset = float(state.get("nested_offset", 0.0))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"tensor {state_name!r} holds no state: {error!r}") from None
    if len(shape) != 2 or min(shape) < 1 or block < 1:
        raise ValueError(f"tensor {state_name!r} says shape {list(shape)} and blocks of {block}")
    numbers = prod(shape)
    blocks = -(-numbers // block)
    weight = infos.get(name)
    if weight is None or weight.element != "U8" or prod(weight.shape) != -(-numbers // 2):
        raise ValueError(f"tensor {name!r} does not hold the {numbers} numbers of its state")
    nested = inner is not None
    members = {
        "codes": name,
        "table": member(infos, f"{name}.quant_map", (16,), ("F32",)),
        "scales": member(infos, f"{name}.absmax", (blocks,), ("U8",) if nested else ("F32",)),
        "state": state_name,
    }
    if nested:
        inner_blocks = -(-blocks // int(inner))
        members["inner_table"] = member(infos, f"{name}.nested_quant_map", (256,), ("F32",))
        members["inner_scales"] = member(infos, f"{name}.nested_absmax", (inner_blocks,), ("F32",))
    return StoredTensor(
        (shape[0], shape[1]),
        members,
        decoder="table_blocks",
        options={"block": block, "inner_block": int(inner) if nested else 0, "offset": offset},
    )
