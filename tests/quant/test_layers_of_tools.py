"""Layers that the formats' own tools wrote, and the tools' own products with them.

`tests/data/layers_of_tools.safetensors` holds for each case a layer [32, 64] as the tool named in the file's
metadata stored it, the checkpoint's settings, and the product of the tool with the rows below.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from quire.models.loading.headers import STORED_BYTES, TensorHeader, read_headers
from quire.ops.linear import LinearReference
from quire.ops.quantized import QuantizedWeight
from quire.quant.decoders.table import decode
from quire.quant.rounding import quantize
from quire.quant.schemes.checkpoint import find_scheme
from quire.quant.stored import TensorInfo

FILE = Path(__file__).parent.parent / "data" / "layers_of_tools.safetensors"
ROWS = torch.tensor([[(7 * i + 13 * j) % 11 - 5 for j in range(64)] for i in range(4)]).float()
KEPT = {
    "autoround_awq": "int4_g32_zp",
    "autoround_gptq": "int4_g32",
    "autoround_plain": "int4_g32_zp",
    "hqq_2": "int8_g32",
    "hqq_3": "int8_g32",
    "hqq_4": "int8_g32",
    "hqq_4_axis0": "plain",
    "hqq_8": "int8_g32",
    "quark_fp8": "fp8",
    "quark_int4": "int4_g32",
    "quark_int8": "int8",
    "quark_mxfp4": "int8_g32",
    "quark_uint4": "int4_g32_zp",
    "quark_w8a8": "int8_rows8_fixed",
    "torchao_float8": "fp8",
    "torchao_int8": "int8",
    "torchao_int8_dynamic": "int8_rows8",
    "torchao_intx4": "int8_g32",
}
EXACT = 3e-4
"""Relative: rows of 16 bits beside weights of integers."""
ROUNDED = {"hqq_2": 4e-3, "hqq_3": 4e-3, "hqq_4": 4e-3, "hqq_8": 4e-3, "torchao_int8_dynamic": 5e-3}
"""HQQ's zero points are floats, and its groups are rounded to 8 bits. torchao multiplies by a step's inverse,
so that the largest number of a row, half a step beyond the last code but one, may go the other way."""


def parts_of(case: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, TensorHeader]]:
    headers = {
        name.removeprefix(f"{case}/"): header
        for name, header in read_headers_of(FILE).items()
        if name.startswith(f"{case}/l.")
    }
    with safe_open(FILE, "pt") as file:
        settings = json.loads(file.metadata()[case])
        return settings, {name: file.get_tensor(f"{case}/{name}") for name in headers}, headers


def read_headers_of(path: Path) -> dict[str, TensorHeader]:
    return {
        name: header
        for name, header in read_headers(path.parent, STORED_BYTES).items()
        if header.path == path
    }


def test_every_case_is_here() -> None:
    with safe_open(FILE, "pt") as file:
        assert {name.partition("/")[0] for name in file.keys()} == set(KEPT)  # noqa: SIM118


@pytest.mark.parametrize("case", KEPT)
def test_the_product_is_the_tools(case: str) -> None:
    settings, tensors, headers = parts_of(case)
    infos = {name: TensorInfo(header.element, header.shape) for name, header in headers.items()}
    found = find_scheme(settings["quant_method"])(
        settings, infos, lambda name: headers[name].read()
    )
    assert set(found) == {"l.weight"}
    stored = found["l.weight"]
    assert stored.shape == (32, 64) and stored.format.name == KEPT[case]
    weight = decode(
        {role: tensors[name] for role, name in stored.members.items()}, stored, torch.float32
    )
    if not isinstance(weight, QuantizedWeight) and stored.format.bits is not None:
        assert not stored.is_exact
        weight = quantize(weight, stored.format)
    provider = LinearReference()
    rows = ROWS
    if case == "quark_fp8":  # the tool rounds inputs to 8 bits too
        scale = tensors["l.input_scale"]
        rows = (ROWS / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale
    got = provider.run(rows, provider.pack(weight))
    with safe_open(FILE, "pt") as file:
        want = file.get_tensor(f"{case}/product")
    error = (got - want).norm() / want.norm()
    assert error < ROUNDED.get(case, EXACT), error
