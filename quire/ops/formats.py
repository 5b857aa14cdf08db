"""The stored forms of a weight and of the cache: what a name in a signature means, byte for byte.

Making them of floats is `quant.rounding`'s, multiplying `ops.linear` and its providers'. No torch here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of one number by the name that settings and descriptions use."""

BLOCK_COLUMNS = 32
"""Output columns that are packed together; a weight is padded to a multiple of them."""

_SCALES_BYTES, _ZEROS_BYTES, _INPUTS_BYTES, _LEAST_DEPTH = 4 * BLOCK_COLUMNS, 64, 192, 32
_ORDER_BYTES = 4
Inputs = Literal["", "row", "row_zp", "fixed", "part"]
_INPUT_NAMES: dict[Inputs, str] = {
    "": "", "row": "_rows8", "row_zp": "_rows8_zp", "fixed": "_rows8_fixed", "part": "_parts8"
}  # fmt: skip
SUPER_DEPTH = 256
"""Inputs of a super-block: numbers of a column that share a factor and a floor."""


@dataclass(frozen=True)
class SuperKind:
    """A kind of super-block; `ops.quantized.SuperBlocks` says what its numbers stand for.

    bits   of a stored code, and bias: what is taken from it.
    span   neighbours with one scale of a byte. has_minima: and with one minimum of a byte.
    unit   neighbours whose products with a row's integers are added up exactly, in 32 bits.
    factor_bytes  of each factor and floor: float16, or float32.
    """

    bits: int
    bias: int
    span: int
    unit: int
    has_minima: bool = False
    factor_bytes: int = 2

    @property
    def block_bytes(self) -> int:
        """Bytes of a super-block of 32 columns."""
        twice = 1 + self.has_minima
        numbers = SUPER_DEPTH * self.bits // 8 + SUPER_DEPTH // self.span * twice
        numbers += self.factor_bytes * twice
        return BLOCK_COLUMNS * numbers


SUPER_KINDS: dict[str, SuperKind] = {
    "q2_k": SuperKind(2, 0, 16, 128, has_minima=True),
    "q3_k": SuperKind(3, 4, 16, 128),
    "q4_k": SuperKind(4, 0, 32, 64, has_minima=True),
    "q5_k": SuperKind(5, 0, 32, 32, has_minima=True),
    "q6_k": SuperKind(6, 32, 16, 16),
    "int8_k": SuperKind(8, 0, 16, 16, factor_bytes=4),
}
"""In the order of the kernels' numbers. A code of int8_k times its scale is at most 4,096 in magnitude."""

_SUPER_NAME = re.compile(r"(q[2-6]_k|int8_k)(:[0-9]+(\+(q[2-6]_k|int8_k):[0-9]+)+)?")


@dataclass(frozen=True)
class Format:
    """Stored bits of a weight [N, K].

    kind   "plain": floats in the model's own dtype; "int8": -128 to 127; "int4": 0 to 15, less the zero
           point; "fp8": e4m3 without infinity; "super": blocks of one of SUPER_KINDS.
    group  inputs, neighbours in K, that share a column's scale; 0 is all of them.
    has_zeros  whether each scale comes with a zero point: from 0 to 15, of int8 -128 to 127; without, int4's
           is 8 and int8's 0.
    half_scales  whether scales of groups of integers are kept as float16, which must hold them exactly.
    one_scale  whether all columns have one scale, which packed weights repeat.
    has_order  whether inputs are put into an order of the weight's own before groups are made of neighbours.
    inputs  what its rows are rounded to: "" is 16 bits for integers, none for floats; of int8 also 8 bits,
            "row" with a scale for each row, "row_zp" with a zero point too, "fixed" with the weight's own;
            "part", of integers and of super-blocks up to six bits: 8 bits with a step for each 128, as 16 have.
    runs   of "super": names of kinds, each with the number of columns that have it; of a single kind
           that number is 0 and means all.
    """

    kind: Literal["plain", "int8", "int4", "fp8", "super"] = "plain"
    group: int = 0
    has_zeros: bool = False
    half_scales: bool = False
    one_scale: bool = False
    has_order: bool = False
    inputs: Inputs = ""
    runs: tuple[tuple[str, int], ...] = ()

    @property
    def name(self) -> str:
        """What an operation's signature carries: "plain", "int8_rows8", "int4_g32_zp_half", "q4_k:64+q6_k:32"."""
        rows = _INPUT_NAMES[self.inputs]
        if self.runs:
            return (
                "+".join(f"{kind}:{count}" if count else kind for kind, count in self.runs) + rows
            )
        group = f"_g{self.group}" * bool(self.group)
        ends = group + "_zp" * self.has_zeros + "_half" * self.half_scales
        return self.kind + ends + "_tensor" * self.one_scale + "_order" * self.has_order + rows

    @property
    def has_byte_rows(self) -> bool:
        """Whether rows are rounded to 8 bits as a whole."""
        return self.inputs not in ("", "part")

    @property
    def takes_short_rows(self) -> bool:
        """Whether `inputs` may be "part"."""
        if self.kind == "super":
            return all(SUPER_KINDS[kind].bits <= 6 for kind, _ in self.runs)
        return self.kind in ("int4", "int8") and not self.has_byte_rows

    @property
    def has_few_bits(self) -> bool:
        """Whether `inputs` may be "part" and numbers have at most six bits."""
        return self.takes_short_rows and self.kind != "int8"

    def with_short_rows(self) -> Format:
        """This format with rows of 8 bits in parts, if it can have them."""
        return replace(self, inputs="part") if self.takes_short_rows else self

    @property
    def bits(self) -> int | None:
        """Bits of one stored number, of several kinds the most; None when it is in the model's own dtype."""
        if self.runs:
            return max(SUPER_KINDS[kind].bits for kind, _ in self.runs)
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
        if self.runs:
            return super_bytes(self, out_size, in_size)
        unit = self.group or _LEAST_DEPTH
        depth = -(-in_size // unit) * unit
        head = (
            _SCALES_BYTES // (1 + self.half_scales)
            + _ZEROS_BYTES * self.has_zeros
            + _INPUTS_BYTES * self.has_byte_rows
        )
        numbers = depth * BLOCK_COLUMNS * self.bits // 8
        blocks = -(-out_size // BLOCK_COLUMNS)
        order = _ORDER_BYTES * in_size * self.has_order
        return blocks * (self.num_groups(in_size) * head + numbers) + order


def super_format(*runs: tuple[str, int]) -> Format:
    """A format of super-blocks; neighbouring runs of one kind are one, and a single kind is all."""
    joined: list[tuple[str, int]] = []
    for kind, count in runs:
        if joined and joined[-1][0] == kind:
            count += joined.pop()[1]
        joined.append((kind, count))
    return Format("super", runs=tuple(joined) if len(joined) > 1 else ((joined[0][0], 0),))


def super_runs(format: Format, out_size: int) -> Iterator[tuple[str, slice]]:
    """The kinds of a weight of `out_size` columns, and which columns have them.

    Raises ValueError if there are other columns than the format names, or runs are no whole blocks.
    """
    begin = 0
    for place, (kind, count) in enumerate(format.runs):
        end = begin + count if count else out_size
        if place + 1 < len(format.runs) and end % BLOCK_COLUMNS:
            raise ValueError(f"{format.name}: a run must end at a multiple of {BLOCK_COLUMNS}")
        yield kind, slice(begin, end)
        begin = end
    if begin != out_size:
        raise ValueError(f"{format.name} is a format of {begin} columns, not of {out_size}")


def expert_formats(format: Format) -> tuple[Format, Format]:
    """The formats of gate and up, and of down: of super-blocks the first run is one's, the last the other's."""
    if not format.runs:
        return format, format
    ends = (format.runs[0][0], format.runs[-1][0])
    wide, down = (replace(super_format((kind, 0)), inputs=format.inputs) for kind in ends)
    return wide, down


def super_index_bytes(out_size: int) -> int:
    """Bytes before the blocks of a packed weight in super-blocks: eight for each, up to whole lines."""
    return -(-out_size // (8 * BLOCK_COLUMNS)) * 64


def super_bytes(format: Format, out_size: int, in_size: int) -> int:
    """`Format.num_bytes` of super-blocks."""
    supers, total = -(-in_size // SUPER_DEPTH), super_index_bytes(out_size)
    for kind, columns in super_runs(format, out_size):
        blocks: int = -(-(columns.stop - columns.start) // BLOCK_COLUMNS)
        total += blocks * supers * SUPER_KINDS[kind].block_bytes
    return total


PLAIN = Format()
"""Floats in the model's own dtype."""


KNOWN: tuple[Format, ...] = (
    *(Format("int8", group) for group in (0, 32, 64, 128)),
    *(Format("int8", inputs=inputs) for inputs in ("row", "row_zp", "fixed")),
    *(Format("int4", group, zeros) for group in (0, 32, 64, 128) for zeros in (False, True)),
    *(Format("fp8"), Format("fp8", one_scale=True), Format("fp8", 128)),
)
"""The formats of fewer bits that floats are rounded to. The groups of fp8 are squares of 128."""

FROM_CHECKPOINTS: tuple[Format, ...] = (
    *(Format("int8", group, has_zeros=True) for group in (0, 32, 64, 128)),
    *(Format(kind, 32, half_scales=True) for kind in ("int4", "int8")),
    *(
        Format(kind, group, zeros, has_order=True)
        for kind in ("int4", "int8")
        for group in (32, 64, 128)
        for zeros in (False, True)
    ),
)
"""Those of integers that only checkpoints have."""

SUPER_FORMATS = tuple(super_format((kind, 0)) for kind in SUPER_KINDS)
"""Those of super-blocks of one kind, which come from checkpoints alone."""

SHORT_FORMATS = tuple(
    format.with_short_rows()
    for format in (*KNOWN, *FROM_CHECKPOINTS, *SUPER_FORMATS)
    if format.takes_short_rows
)
"""Those that also meet rows of 8 bits in parts."""


@dataclass(frozen=True)
class CacheFormat:
    """Stored numbers of keys and values.

    kind  "plain": floats in the model's own dtype; "fp8": e4m3, no infinity; "e5m2": e5m2, up to 57,344;
          "int8": -127 to 127.
    has_scales  whether the key and the value of each token and kv head have a float32 scale each.
    """

    kind: Literal["plain", "fp8", "e5m2", "int8"] = "plain"
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
    "fp8_e5m2": CacheFormat("e5m2"),
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
    if name.endswith(_INPUT_NAMES["part"]):
        format = parse(name.removesuffix(_INPUT_NAMES["part"]))
        if format.takes_short_rows:
            return format.with_short_rows()
    if _SUPER_NAME.fullmatch(name):
        runs = (run.partition(":") for run in name.split("+"))
        return Format("super", runs=tuple((kind, int(count or 0)) for kind, _, count in runs))
    for format in (PLAIN, *KNOWN, *FROM_CHECKPOINTS):
        if format.name == name:
            return format
    raise ValueError(
        f"no stored format is named {name!r}; known: "
        f"{', '.join(one.name for one in (PLAIN, *KNOWN, *SUPER_FORMATS))}"
    )
