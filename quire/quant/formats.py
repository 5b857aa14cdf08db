"""How numbers are stored: the formats that a weight can have.

Which checkpoint setting means which format is for `quant.schemes`, multiplying for `ops`.
"""

from __future__ import annotations

from dataclasses import dataclass

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number by the name that settings and descriptions use."""


@dataclass(frozen=True)
class Format:
    """Stored bits of a weight. `name` is what an operation's signature carries.

    bits  of one stored number; None when it is stored in the model's own dtype.
    """

    name: str
    bits: int | None = None

    def num_bytes(self, numel: int, dtype: str) -> int:
        """Bytes of `numel` numbers; `dtype` is the model's, a key of DTYPE_BYTES."""
        bits = DTYPE_BYTES[dtype] * 8 if self.bits is None else self.bits
        return -(-numel * bits // 8)


PLAIN = Format("plain")
"""Floats in the model's own dtype."""
