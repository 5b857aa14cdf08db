"""GGUF: what a type of block means for how a weight is kept.

Files are read in `models.loading.gguf`, blocks in `quant.decoders.gguf`. Source: the ggml project's
description of its types.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.quant.formats import PLAIN, SUPER_FORMATS, Format

_INT8 = Format("int8", 32)
_INT8_HALF, _INT4_HALF = (Format(kind, 32, half_scales=True) for kind in ("int8", "int4"))
_Q2_K, _Q3_K, _Q4_K, _Q5_K, _Q6_K, _INT8_K = SUPER_FORMATS


@dataclass(frozen=True)
class BlockType:
    """How `numbers` neighbours in a row are kept in `num_bytes` bytes.

    format    what they are kept as here; None: not read. is_exact: no number changes by it.
    """

    name: str
    numbers: int
    num_bytes: int
    format: Format | None
    is_exact: bool = True


TYPES: dict[int, BlockType] = {
    0: BlockType("F32", 1, 4, PLAIN),
    1: BlockType("F16", 1, 2, PLAIN),
    2: BlockType("Q4_0", 32, 18, _INT4_HALF),
    3: BlockType("Q4_1", 32, 20, _INT8, is_exact=False),
    6: BlockType("Q5_0", 32, 22, _INT8_HALF),
    7: BlockType("Q5_1", 32, 24, _INT8, is_exact=False),
    8: BlockType("Q8_0", 32, 34, _INT8_HALF),
    9: BlockType("Q8_1", 32, 36, None),
    10: BlockType("Q2_K", 256, 84, _Q2_K),
    11: BlockType("Q3_K", 256, 110, _Q3_K),
    12: BlockType("Q4_K", 256, 144, _Q4_K),
    13: BlockType("Q5_K", 256, 176, _Q5_K),
    14: BlockType("Q6_K", 256, 210, _Q6_K),
    15: BlockType("Q8_K", 256, 292, None),
    16: BlockType("IQ2_XXS", 256, 66, _INT8_K),
    17: BlockType("IQ2_XS", 256, 74, _INT8_K),
    18: BlockType("IQ3_XXS", 256, 98, _INT8_K),
    19: BlockType("IQ1_S", 256, 50, _INT8_K),
    20: BlockType("IQ4_NL", 32, 18, _INT8_HALF),
    21: BlockType("IQ3_S", 256, 110, _INT8_K),
    22: BlockType("IQ2_S", 256, 82, _INT8_K),
    23: BlockType("IQ4_XS", 256, 136, _INT8_K),
    24: BlockType("I8", 1, 1, None),
    25: BlockType("I16", 1, 2, None),
    26: BlockType("I32", 1, 4, None),
    27: BlockType("I64", 1, 8, None),
    28: BlockType("F64", 1, 8, None),
    29: BlockType("IQ1_M", 256, 56, _INT8_K),
    30: BlockType("BF16", 1, 2, PLAIN),
    34: BlockType("TQ1_0", 256, 54, _Q3_K),
    35: BlockType("TQ2_0", 256, 66, _Q3_K),
    39: BlockType("MXFP4", 32, 17, _INT8),
    40: BlockType("NVFP4", 64, 36, PLAIN),
}
"""By the number in the file. Q4_1 and Q5_1 have a float16 minimum beside each scale, which no format holds:
they are rounded to 8 bits with a scale for 32 numbers."""

FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Torch's names of the types that are floats."""
