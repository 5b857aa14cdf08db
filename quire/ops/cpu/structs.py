"""The one table of native operations: the fields of each argument struct.

`tools/native_header.py` writes csrc/include/quire_ops.h from it, and the ctypes classes are made
here, so that both sides agree. Loading the library is `ops.cpu.library`.
"""

from __future__ import annotations

import ctypes

VERSION = 1
"""Raised with every change of a struct's meaning that its fields do not show."""

DTYPES = {"float32": 0, "bfloat16": 1, "float16": 2}
"""Number types as the kernels number them."""

TYPES: dict[str, tuple[str, type[ctypes._SimpleCData[int]] | type[ctypes._SimpleCData[float]]]] = {
    "const": ("const void*", ctypes.c_void_p),  # type: ignore[dict-item]
    "mut": ("void*", ctypes.c_void_p),  # type: ignore[dict-item]
    "i64": ("int64_t", ctypes.c_int64),
    "i32": ("int32_t", ctypes.c_int32),
    "f32": ("float", ctypes.c_float),
}
"""Kinds of fields: their C type and ctypes'. `const` and `mut` are pointers to what is read or written."""

OPERATIONS: dict[str, str] = {
    # x [rows, K] times packed weights, + delta [rows, N] float32 + bias [N] float32; null for none
    "linear": "const:x const:weight const:scales const:bias const:delta mut:out "
    "i64:rows i64:x_stride i64:out_stride i64:delta_stride i64:N i64:K "
    "i32:dtype i32:format i32:group i32:reserved",
    # weight [N, K] as stored to the layout of `linear`
    "pack_linear": "const:weight mut:out i64:N i64:K i64:stride i32:dtype i32:format",
    # what the machine can do: bytes read in order, and dot products of registers
    "probe_read": "const:data mut:out i64:bytes",
    "probe_dot": "mut:out i64:steps i32:dtype i32:reserved",
}
"""By operation, `kind:name` of each field in order; sizes and strides are in elements."""


def fields(operation: str) -> list[tuple[str, str]]:
    """(kind, name) of each field."""
    pairs = (field.split(":") for field in OPERATIONS[operation].split())
    return [(kind, name) for kind, name in pairs]


def _make(operation: str) -> type[ctypes.Structure]:
    members = [(name, TYPES[kind][1]) for kind, name in fields(operation)]
    return type(f"{operation}_args", (ctypes.Structure,), {"_fields_": members})


NUMBERS = {operation: number for number, operation in enumerate(OPERATIONS)}
"""Places in the library's table of functions."""

STRUCTS = {operation: _make(operation) for operation in OPERATIONS}
"""The ctypes class of each operation's arguments."""


class Call(ctypes.Structure):
    """One entry of a list that the library carries out."""

    _fields_ = [
        ("operation", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("args", ctypes.c_void_p),
    ]


def header() -> str:
    """The text of csrc/include/quire_ops.h."""
    lines = [
        "// Made by tools/native_header.py from quire/ops/cpu/structs.py; do not edit.",
        "#pragma once",
        "#include <stdint.h>",
        "",
        f"#define QUIRE_VERSION {VERSION}",
        "",
    ]
    lines += [f"#define QUIRE_{name.upper()} {number}" for name, number in DTYPES.items()]
    lines += ["", "#define QUIRE_OPERATIONS(X) \\"]
    lines += [f"  X({operation}) \\" for operation in OPERATIONS]
    lines[-1] = lines[-1].removesuffix(" \\")
    for operation in OPERATIONS:
        lines += ["", "typedef struct {"]
        lines += [f"  {TYPES[kind][0]} {name};" for kind, name in fields(operation)]
        lines += [f"}} QuireArgs_{operation};"]
    lines += [
        "",
        "typedef struct {",
        "  int32_t operation;",
        "  int32_t reserved;",
        "  const void* args;",
        "} QuireCall;",
    ]
    return "\n".join(lines) + "\n"
