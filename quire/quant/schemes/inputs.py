"""How the inputs of a layer are rounded to 8 bits, as a checkpoint's settings say.

What rounding means is told in `ops.quantized`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.quant.formats import Inputs
from quire.quant.schemes.parts import Infos, Read, one_number

Fixed = tuple[float, int] | None
"""What stands for one code and the code of zero, where those are the checkpoint's."""


def rounded_inputs(
    infos: Infos, read: Read, stem: str, settings: Mapping[str, Any]
) -> tuple[Inputs, Fixed]:
    """How rows are rounded, from settings in the words of compressed-tensors; none are no rounding.

    A scale that all rows of a batch would share is one for each row here, or answers would depend on others.
    Raises ValueError for inputs that int8 weights do not meet here, and scales that are none.
    """
    if not settings:
        return "", None
    kind = settings.get("type", "int"), settings.get("num_bits", 8)
    strategy, dynamic = settings.get("strategy"), settings.get("dynamic", False)
    if (
        kind != ("int", 8)
        or strategy not in ("token", "tensor", None)
        or dynamic not in (True, False)
    ):
        raise ValueError(
            f"{stem}: inputs of {kind[1]} bits, type {kind[0]!r}, strategy {strategy!r}, dynamic {dynamic!r}, "
            "are not computed with int8 weights; int of 8 bits by token or tensor are"
        )
    symmetric = settings.get("symmetric", True) is not False
    if dynamic:
        return "row" if symmetric else "row_zp", None
    scale, zero = f"{stem}.input_scale", f"{stem}.input_zero_point"
    if scale not in infos:
        raise ValueError(f"the checkpoint lacks the tensor {scale!r}, which static inputs need")
    step = one_number(infos, read, scale)
    shift = 0.0 if symmetric or zero not in infos else one_number(infos, read, zero)
    if not 2.0**-100 <= step < float("inf") or not -128 <= shift <= 127:
        raise ValueError(f"{stem}: inputs have the scale {step} and the zero point {shift}")
    return "fixed", (step, int(shift))
