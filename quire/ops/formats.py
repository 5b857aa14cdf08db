"""The stored forms of a weight and of the cache: what a name in a signature means, byte for byte.

Making them of floats is `quant.rounding`'s, multiplying `ops.linear` and its providers'. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number by the name that settings and descriptions use."""

BLOCK_COLUMNS = 32
"""Output columns that are packed together; a weight is padded to a multiple of them."""

_SCALES_BYTES, _ZEROS_BYTES, _INPUTS_BYTES, _LEAST_DEPTH = 4 * BLOCK_COLUMNS, 64, 192, 32
Inputs = Literal["", "row", "row_zp", "fixed"]
_INPUT_NAMES: dict[Inputs, str] = {"": "", "row": "", "row_zp": "_zp", "fixed": "_fixed"}


@dataclass(frozen=True)
class Format:
    """Stored bits of a weight [N, K].

    kind   "plain": floats in the model's own dtype; "int8": -128 to 127; "int4": 0 to 15, less the zero
           point; "fp8": e4m3 without infinity.
    group  inputs, neighbours in K, that share a column's scale; 0 is all of them.
    has_zeros  whether each scale comes with a zero point from 0 to 15; without, int4's is 8.
    one_scale  whether all columns have one scale, which packed weights repeat.
    inputs  what its rows are rounded to: "" is 16 bits for integers, none for floats; of int8 also 8 bits,
            "row" with a scale for each row, "row_zp" with a zero point too, "fixed" with the weight's own.
    """

    kind: Literal["plain", "int8", "int4", "fp8"] = "plain"
    group: int = 0
    has_zeros: bool = False
    one_scale: bool = False
    inputs: Inputs = ""

    @property
    def name(self) -> str:
        """What an operation's signature carries: "plain", "int8_rows8", "int4_g32_zp", "fp8_tensor"."""
        group = f"_g{self.group}" * bool(self.group)
        ends = group + "_zp" * self.has_zeros + "_tensor" * self.one_scale
        return self.kind + ends + f"_rows8{_INPUT_NAMES[self.inputs]}" * bool(self.inputs)

    @property
    def bits(self) -> int | None:
        """Bits of one stored number; None when it is stored in the model's own dtype."""
        return {"plain": None, "int8": 8, "int4": 4, "fp8": 8}[self.kind]

    def of(self, name: str) -> Format:
        """The format of a parameter: this one for any, see `quant.formats.Formats`."""
        return self

    def num_groups(self, in_size: int) -> int:
        """Scales of one column of `in_size` inputs."""
        return -(-in_size // self.group) if self.group else 1

    def num_bytes(self, out_size: int, in_size: int, dtype_bytes: int) -> int:
        """Bytes of a weight [out_size, in_size] as it is kept; dtype_bytes of the model's floats.

        Of a packed one with its scales, zero points and padding.
        """
        if self.bits is None:
            return out_size * in_size * dtype_bytes
        unit = self.group or _LEAST_DEPTH
        depth = -(-in_size // unit) * unit
        head = _SCALES_BYTES + _ZEROS_BYTES * self.has_zeros + _INPUTS_BYTES * bool(self.inputs)
        numbers = depth * BLOCK_COLUMNS * self.bits // 8
        blocks = -(-out_size // BLOCK_COLUMNS)
        return blocks * (self.num_groups(in_size) * head + numbers)


PLAIN = Format()
"""Floats in the model's own dtype."""


KNOWN: tuple[Format, ...] = (
    *(Format("int8", group) for group in (0, 32, 64, 128)),
    *(Format("int8", inputs=inputs) for inputs in ("row", "row_zp", "fixed")),
    *(Format("int4", group, zeros) for group in (0, 32, 64, 128) for zeros in (False, True)),
    *(Format("fp8"), Format("fp8", one_scale=True), Format("fp8", 128)),
)
"""The formats of fewer bits that there are. The groups of fp8 are squares of 128."""


@dataclass(frozen=True)
class CacheFormat:
    """Stored numbers of keys and values.

    kind  "plain": floats in the model's own dtype; "fp8": e4m3, no infinity; "int8": -127 to 127.
    has_scales  whether the key and the value of each token and kv head have a float32 scale each.
    """

    kind: Literal["plain", "fp8", "int8"] = "plain"
    has_scales: bool = False

    @property
    def scale_bytes(self) -> int:
        """Bytes of the scales of one token and kv head."""
        return 8 if self.has_scales else 0

    def number_bytes(self, dtype_bytes: int) -> int:
        """Bytes of one number; dtype_bytes of the model's floats."""
        return dtype_bytes if self.kind == "plain" else 1

    def num_bytes(
        self, num_kv_heads: int, head_size: int, value_size: int, dtype_bytes: int
    ) -> int:
        """Bytes of one token in one layer."""
        numbers = (head_size + value_size) * self.number_bytes(dtype_bytes)
        return num_kv_heads * (numbers + self.scale_bytes)


PLAIN_CACHE = CacheFormat()
"""Floats in the model's own dtype."""

CACHE_FORMATS = {
    "plain": PLAIN_CACHE,
    "fp8": CacheFormat("fp8"),
    "fp8_per_token_head": CacheFormat("fp8", has_scales=True),
    "int8_per_token_head": CacheFormat("int8", has_scales=True),
}
"""By the name that an operation's signature carries."""


def cache_format(name: str) -> CacheFormat:
    """The cache's format of a name. Raises ValueError for an unknown one."""
    if name not in CACHE_FORMATS:
        raise ValueError(
            f"no stored form of the cache is named {name!r}; known: {', '.join(CACHE_FORMATS)}"
        )
    return CACHE_FORMATS[name]


def parse(name: str) -> Format:
    """The format of a name. Raises ValueError for an unknown one."""
    for format in (PLAIN, *KNOWN):
        if format.name == name:
            return format
    raise ValueError(
        f"no stored format is named {name!r}; known: {', '.join(one.name for one in (PLAIN, *KNOWN))}"
    )
