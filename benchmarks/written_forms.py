"""The demo model in the forms of checkpoints that are written here: by a format's library, or as the tests do.

Each form's folder holds beside its files a folder `floats`: the numbers that it stands for, as a plain checkpoint.
The tools that write whole checkpoints are `form_tools`'.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.models import test_microscaled_checkpoints as microscaled
from tests.models import test_sparse_checkpoints as sparse
from tests.models import test_turned_checkpoints as turned
from tests.models.test_quantized_checkpoints import (
    compressed_settings,
    is_quantized,
    write_awq,
    write_bitsandbytes,
    write_compressed,
    write_fp8,
    write_gptq,
    write_in_order,
)

DEMO = Path("quire/models/demo")
INDEPENDENT = "independent writer"
FLOATS = "floats"
"""The folder of a form's numbers, in its own."""

Tensors = dict[str, torch.Tensor]
Write = Callable[[str, torch.Tensor], tuple[Tensors, torch.Tensor]]
"""What is stored in place of a weight, and the numbers that it stands for."""
Written = tuple[str, dict[str, Any], Write]
"""Who writes a form, its quantization_config, and what is stored in place of a weight."""


def write_form(settings: dict[str, Any], write: Write, place: Path) -> Path:
    """The demo model in a form, and its numbers beside it."""
    stored: Tensors = {}
    meant: Tensors = {}
    for parameter, weight in load_file(DEMO / "model.safetensors").items():
        meant[parameter] = stored[parameter] = weight
        if is_quantized(parameter):
            del stored[parameter]
            parts, meant[parameter] = write(parameter, weight.float())
            stem = parameter.removesuffix(".weight")
            stored |= {f"{stem}.{end}": part for end, part in parts.items()}
    put_folder(place, stored, settings)
    put_folder(place / FLOATS, meant)
    return place


def put_folder(place: Path, tensors: Tensors, settings: dict[str, Any] | None = None) -> None:
    """A checkpoint folder of the demo model with other tensors."""
    place.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(kept, place / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((DEMO / "config.json").read_text())
    if settings is not None:
        config["quantization_config"] = settings
    (place / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / file, place / file)


def write_pruned(place: Path) -> Path:
    """The demo model with zeros in place of the two smallest of each four weights, as floats."""
    tensors = {
        name: weight * sparse.two_of_four(weight) if is_quantized(name) else weight
        for name, weight in load_file(DEMO / "model.safetensors").items()
    }
    put_folder(place, tensors)
    return place


def write_turned(groups: dict[str, Any], args: dict[str, Any] | None, place: Path) -> Path:
    """With turned inputs and outputs by compressed-tensors' own hooks. args  of what is quantized then."""
    turned.write(DEMO, place, groups, args)
    settings = json.loads((place / "config.json").read_text())["quantization_config"]
    plain = load_file(DEMO / "model.safetensors")
    tensors = load_file(place / "model.safetensors")
    put_folder(
        place,
        {
            name: one.to(plain[name].dtype) if name in plain else one
            for name, one in tensors.items()
        },
        settings,
    )
    return place


def _squares(name: str, weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
    """FP8 in squares of 128, those at the edges smaller."""
    rows, columns = weight.shape
    wide = torch.nn.functional.pad(weight, (0, -columns % 128, 0, -rows % 128))
    parts, meant = write_fp8("block")(name, wide)
    parts["weight"] = parts["weight"].view(torch.uint8)[:rows, :columns].view(torch.float8_e4m3fn)
    return parts, meant[:rows, :columns]


def _compressed(style: str, inputs: bool = False, **args: Any) -> Written:
    rows = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}
    settings = compressed_settings(args, style, rows if inputs else None)
    return _LIBRARY, settings, write_compressed(args, style)


def _microscaled(bits: int, style: str) -> Written:
    settings, write = microscaled.write_compressed(bits, style)
    return _LIBRARY, settings, write


def _gptq(bits: int, *, symmetric: bool = True) -> Written:
    settings = {"quant_method": "gptq", "bits": bits, "group_size": 32, "sym": symmetric}
    return INDEPENDENT, settings, write_gptq(bits, 32, symmetric, 1)


def _masked(kind: str) -> Written:
    """The two largest of each four, and a mask."""
    write = sparse.write_masked(kind, is_flat=False)
    how = sparse.WEIGHTS | {"num_bits": 8, "type": "float" if kind == "fp8" else "int"}
    settings = compressed_settings(how, "dense")
    settings["sparsity_config"] = {"format": "sparse-24-bitmask", "targets": ["Linear"]}
    if kind != "floats":
        return INDEPENDENT, settings, write
    del settings["config_groups"]
    return INDEPENDENT, settings, lambda name, weight: write(name, weight.bfloat16())


def _marlin(bits: int, *, as_gptq: bool = False) -> Written:
    """The two largest of each four, in tiles; a scale for a column."""
    if as_gptq:
        settings = {"quant_method": "gptq", "checkpoint_format": "marlin_24", "bits": bits}
        write = sparse.write_marlin(bits, -1, ("B_24", "B_meta", "s"))
        return f"functions of {_LIBRARY}", settings | {"group_size": -1, "sym": True}, write
    settings = compressed_settings(sparse.WEIGHTS | {"num_bits": bits}, "marlin-24")
    write = sparse.write_marlin(bits, -1, ("weight_packed", "meta", "scale_packed"))
    return f"functions of {_LIBRARY}", settings, write


def _quark_fp8(dtype: torch.dtype, kind: str) -> Written:
    weight = {"dtype": kind, "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0"}
    settings = {"quant_method": "quark", "global_quant_config": {"weight": weight}}
    return INDEPENDENT, settings, microscaled.write_fp8(dtype)


def _version(package: str) -> str:
    return f"{package} {version(package)}"


_LIBRARY = _version("compressed-tensors")
_BYTES = _version("bitsandbytes")
_INT = {"type": "int", "symmetric": True}
_GROUPS = {"strategy": "group", "group_size": 32}
_FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True}
_FLOAT = {"type": "float", "symmetric": True}
OURS: dict[str, Written] = {
    "GPTQ 8 bits g32, zero points": _gptq(8, symmetric=False),
    "GPTQ 3 bits g32, zero points": _gptq(3, symmetric=False),
    "GPTQ marlin_24, 4 bits, 2:4": _marlin(4, as_gptq=True),
    "AWQ 4 bits g32 (gemm)": (
        INDEPENDENT,
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
        write_awq,
    ),
    "compressed-tensors W4A16 g32": _compressed("pack-quantized", num_bits=4, **_INT, **_GROUPS),
    "compressed-tensors W4A16 g32, zero points": _compressed(
        "pack-quantized", num_bits=4, type="int", symmetric=False, **_GROUPS
    ),
    "compressed-tensors W4A16 g32, g_idx": (
        INDEPENDENT,
        compressed_settings(
            {"num_bits": 4, "actorder": "group", **_INT, **_GROUPS}, "pack-quantized"
        ),
        write_in_order,
    ),
    "compressed-tensors W3A16 g32": _compressed("pack-quantized", num_bits=3, **_INT, **_GROUPS),
    "compressed-tensors W8A16 g32": _compressed("pack-quantized", num_bits=8, **_INT, **_GROUPS),
    "compressed-tensors W8A8": _compressed(
        "int-quantized", True, num_bits=8, strategy="channel", **_INT
    ),
    "compressed-tensors FP8": _compressed(
        "float-quantized", num_bits=8, strategy="channel", **_FLOAT
    ),
    "compressed-tensors FP8, one scale": _compressed(
        "float-quantized", num_bits=8, strategy="tensor", **_FLOAT
    ),
    "compressed-tensors NVFP4": _compressed(
        "nvfp4-pack-quantized", num_bits=4, strategy="tensor_group", group_size=16, **_FLOAT
    ),
    "compressed-tensors MXFP4": _microscaled(4, "mxfp4-pack-quantized"),
    "compressed-tensors MXFP6": _microscaled(6, "mxfp6-pack-quantized"),
    "compressed-tensors MXFP8": _microscaled(8, "mxfp8-quantized"),
    "compressed-tensors sparse-24-bitmask, 2:4": _masked("floats"),
    "compressed-tensors sparse-24-bitmask, int8, 2:4": _masked("int8"),
    "compressed-tensors sparse-24-bitmask, FP8, 2:4": _masked("fp8"),
    "compressed-tensors marlin-24, 4 bits, 2:4": _marlin(4),
    "compressed-tensors marlin-24, 8 bits, 2:4": _marlin(8),
    "fp8, one scale": (
        INDEPENDENT,
        {"quant_method": "fp8", "activation_scheme": "static"},
        write_fp8("tensor"),
    ),
    "fp8, squares of 128": (
        INDEPENDENT,
        {"quant_method": "fp8", "weight_block_size": [128, 128]},
        _squares,
    ),
    "fbgemm_fp8": (INDEPENDENT, {"quant_method": "fbgemm_fp8"}, write_fp8("channel")),
    "ptpc_fp8": (INDEPENDENT, {"quant_method": "ptpc_fp8"}, write_fp8("channel")),
    "bitsandbytes int8": (
        _BYTES,
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        write_bitsandbytes("int8"),
    ),
    "bitsandbytes nf4": (_BYTES, _FOUR, write_bitsandbytes("nf4")),
    "bitsandbytes nf4, nested": (_BYTES, _FOUR, write_bitsandbytes("nf4_nested")),
    "bitsandbytes fp4": (_BYTES, _FOUR, write_bitsandbytes("fp4")),
    "Quark MXFP8 (e4m3)": _quark_fp8(torch.float8_e4m3fn, "fp8_e4m3"),
    "Quark MXFP8 (e5m2)": _quark_fp8(torch.float8_e5m2, "fp8_e5m2"),
    "modelopt MXFP8 (e5m2)": (
        INDEPENDENT,
        {"quant_method": "modelopt"},
        microscaled.write_fp8(torch.float8_e5m2),
    ),
}
"""Forms that replace one weight after the other."""


def _turns(kind: str) -> Iterable[dict[str, Any]]:
    """Inputs of all layers in blocks of 64, and outputs of q, k and v in blocks of 32."""
    yield {"type": kind, "head_dim": 64, "apply": turned.both("Linear")}
    yield {"type": kind, "head_dim": 32, "apply": turned.OUTPUTS}


def _groups(kind: str) -> dict[str, Any]:
    return {f"turn_{number}": one for number, one in enumerate(_turns(kind))}


TURNED: dict[str, tuple[str, dict[str, Any], dict[str, Any] | None]] = {
    "compressed-tensors transform_config, Hadamard": (_LIBRARY, _groups("hadamard"), None),
    "compressed-tensors transform_config, random Hadamard, W4A16 g32": (
        _LIBRARY,
        _groups("random-hadamard"),
        {"num_bits": 4, **_INT, **_GROUPS},
    ),
}
"""Forms with turned inputs and outputs: who writes them, the turns, and what is quantized then."""
