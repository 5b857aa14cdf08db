"""The demo model in the forms of quantized checkpoints, for `benchmarks.quantization` to ask.

Each is written by the format's own tool where that runs on a CPU, else by the writers of the tests, which are
independent of the readers: rounded to the nearest, without calibration.
"""

from __future__ import annotations

import ctypes
import functools
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file, save_file

from benchmarks.peers.conversion import run_tool
from benchmarks.peers.roster import SCRIPTS
from benchmarks.peers.store import DEFAULT_ROOT, Store
from tests.models.gguf_writer import Kind, write_gguf
from tests.models.test_quantized_checkpoints import (
    compressed_settings,
    is_quantized,
    write_awq,
    write_compressed,
    write_fp8,
    write_gptq,
)

DEMO = Path("quire/models/demo")
INDEPENDENT = "independent writer"
STORE = Store.at(DEFAULT_ROOT)

Write = Callable[[str, torch.Tensor], tuple[dict[str, torch.Tensor], torch.Tensor]]


@dataclass(frozen=True)
class Form:
    """The demo model in one form.

    writer  the tool that writes it. place  writes it under a folder and says where it is.
    """

    name: str
    writer: str
    place: Callable[[Path], Path]


def forms() -> Iterator[Form]:
    """All of them; those of tools whose environment `benchmarks.peers.setup` has not made are left out, and said."""
    yield from _gguf_forms()
    for name, (writer, settings, write) in OURS.items():
        yield Form(name, writer, functools.partial(_rewritten, name, settings, write))
    yield from _tools_forms()


def _rewritten(name: str, settings: dict[str, Any], write: Write, folder: Path) -> Path:
    place = folder / name.replace(" ", "-")
    place.mkdir(parents=True, exist_ok=True)
    stored: dict[str, torch.Tensor] = {}
    for parameter, weight in load_file(DEMO / "model.safetensors").items():
        if not is_quantized(parameter):
            stored[parameter] = weight
            continue
        parts, _ = write(parameter, weight.float())
        stem = parameter.removesuffix(".weight")
        stored |= {f"{stem}.{end}": part.clone().contiguous() for end, part in parts.items()}
    save_file(stored, place / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((DEMO / "config.json").read_text())
    config["quantization_config"] = settings
    (place / "config.json").write_text(json.dumps(config))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(DEMO / file, place / file)
    return place


def _squares(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """FP8 in squares of 128, those at the edges smaller."""
    rows, columns = weight.shape
    wide = torch.nn.functional.pad(weight, (0, -columns % 128, 0, -rows % 128))
    parts, meant = write_fp8("block")(name, wide)
    parts["weight"] = parts["weight"].view(torch.uint8)[:rows, :columns].view(torch.float8_e4m3fn)
    return parts, meant[:rows, :columns]


def _bitsandbytes(kind: str, *, nested: bool = False) -> Write:
    def write(name: str, weight: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        import bitsandbytes

        if kind == "int8":
            limit = weight.abs().amax(1)
            codes = (weight / limit[:, None] * 127).round().to(torch.int8)
            mark = torch.tensor(0, dtype=torch.uint8)
            parts = {"weight": codes, "SCB": limit, "weight_format": mark}
            return parts, codes.float() * limit[:, None] / 127
        packed, state = bitsandbytes.functional.quantize_4bit(
            weight, quant_type=kind, compress_statistics=nested, blocksize=64
        )
        state_parts = state.as_dict(packed=True)
        return {"weight": packed} | {f"weight.{end}": x for end, x in state_parts.items()}, weight

    return write


def _compressed(style: str, inputs: bool = False, **args: Any) -> tuple[str, dict[str, Any], Write]:
    rows = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True, "symmetric": True}
    settings = compressed_settings(args, style, rows if inputs else None)
    return _version("compressed-tensors"), settings, write_compressed(args, style)


def _gptq(bits: int, **more: Any) -> tuple[str, dict[str, Any], Write]:
    symmetric, order = more.get("sym", True), "random" if more.get("desc_act") else ""
    settings = {"quant_method": "gptq", "bits": bits, "group_size": 32, "sym": symmetric} | more
    return INDEPENDENT, settings, write_gptq(bits, 32, symmetric, 1, order)


def _version(package: str) -> str:
    return f"{package} {version(package)}"


_INT = {"type": "int", "symmetric": True}
_GROUPS = {"strategy": "group", "group_size": 32}
_FOUR = {"quant_method": "bitsandbytes", "load_in_4bit": True}
_FLOAT = {"type": "float", "symmetric": True}
OURS: dict[str, tuple[str, dict[str, Any], Write]] = {
    "GPTQ 3 bits g32": _gptq(3),
    "GPTQ 2 bits g32": _gptq(2),
    "GPTQ 4 bits g32, act-order": _gptq(4, desc_act=True),
    "GPTQ 8 bits g32, zero points": _gptq(8, sym=False),
    "AWQ 4 bits g32 (gemm)": (
        INDEPENDENT,
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
        write_awq,
    ),
    "compressed-tensors W4A16 g32": _compressed("pack-quantized", num_bits=4, **_INT, **_GROUPS),
    "compressed-tensors W4A16 g32, zero points": _compressed(
        "pack-quantized", num_bits=4, type="int", symmetric=False, **_GROUPS
    ),
    "compressed-tensors W8A16 g32": _compressed("pack-quantized", num_bits=8, **_INT, **_GROUPS),
    "compressed-tensors W8A8": _compressed(
        "int-quantized", True, num_bits=8, strategy="channel", **_INT
    ),
    "compressed-tensors FP8": _compressed(
        "float-quantized", num_bits=8, strategy="channel", **_FLOAT
    ),
    "compressed-tensors NVFP4": _compressed(
        "nvfp4-pack-quantized", num_bits=4, strategy="tensor_group", group_size=16, **_FLOAT
    ),
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
    "bitsandbytes int8": (
        INDEPENDENT,
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
        _bitsandbytes("int8"),
    ),
    "bitsandbytes nf4": (_version("bitsandbytes"), _FOUR, _bitsandbytes("nf4")),
    "bitsandbytes nf4, nested": (
        _version("bitsandbytes"),
        _FOUR,
        _bitsandbytes("nf4", nested=True),
    ),
    "bitsandbytes fp4": (_version("bitsandbytes"), _FOUR, _bitsandbytes("fp4")),
}
"""Who writes it, quantization_config, and what is stored in place of a weight."""


def _tools_forms() -> Iterator[Form]:
    """Those of `form_tools`, made by the Python of its environment."""
    python, script = STORE.python("formats"), Path("benchmarks/form_tools.py")
    if not python.is_file():
        print("# tools are not here: run python -m benchmarks.peers.setup formats", flush=True)
        return
    found = subprocess.run([str(python), str(script)], check=True, capture_output=True, text=True)
    for line in found.stdout.splitlines():
        name, _, writer = line.partition("\t")

        def place(folder: Path, name: str = name) -> Path:
            target = folder / name.replace(" ", "-")
            words = [str(python), str(script), name, str(DEMO), str(target)]
            run_tool(words, target, folder / "tool.log")
            return target

        yield Form(name, writer, place)


GGUF_KINDS = (
    *("Q8_0", "Q6_K", "Q5_K_M", "Q5_1", "Q5_0", "Q4_K_M", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"),
    *("Q3_K_M", "IQ3_S", "Q2_K", "TQ2_0"),
)
"""Mixtures that llama.cpp's quantizer makes without a matrix of importance."""
GGUF_BLOCKS = (
    *("MXFP4", "TQ1_0", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"),
    *("F16", "F32"),
)
"""Types of all matrices but the embedding, by ggml's function for rows, each input as important as any."""


def _gguf_forms() -> Iterator[Form]:
    python = STORE.python("llamacpp")
    if not python.is_file():
        print("# llama.cpp is not here: run python -m benchmarks.peers.setup llamacpp", flush=True)
        return
    found = subprocess.run(
        [str(python), "-c", "import llama_cpp as l; print(l.__version__, l.__file__)"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    number, _, package = found.stdout.strip().partition(" ")
    writer = f"llama.cpp of llama-cpp-python {number}"
    for kind in GGUF_KINDS:

        def place(folder: Path, kind: str = kind) -> Path:
            plain, target = folder / "demo-F32.gguf", folder / f"demo-{kind}.gguf"
            write_gguf(DEMO, plain, lambda _: Kind.F32, _with_tokenizer)
            words = [str(python), str(SCRIPTS / "quantize_gguf.py"), str(plain), str(target), kind]
            run_tool(words, target, folder / "quantize.log")
            return target

        yield Form(f"GGUF {kind}", writer, place)
    library = Path(package).parent / "lib" / "libggml-base.so"
    for kind in GGUF_BLOCKS:

        def blocks(folder: Path, kind: Kind = Kind[kind]) -> Path:
            target = folder / f"demo-{kind.name}.gguf"
            rows = functools.partial(_ggml_blocks, library)
            return write_gguf(
                DEMO, target, functools.partial(_type_of, kind), _with_tokenizer, rows
            )

        yield Form(f"GGUF {kind}", _version("gguf") if kind[0] == "F" else writer, blocks)


def _type_of(kind: Kind, name: str) -> Kind:
    """Rows of `ffn_down` are no whole blocks of 256; those and the embedding, which is the head too, get others."""
    if kind in (Kind.F16, Kind.F32, Kind.MXFP4):
        return Kind.Q8_0 if kind == Kind.MXFP4 and "token_embd" in name else kind
    return Kind.Q6_K if "token_embd" in name else Kind.IQ4_NL if "ffn_down" in name else kind


def _ggml_blocks(library: Path, values: np.ndarray, kind: Kind) -> np.ndarray:
    base = ctypes.CDLL(str(library))
    base.ggml_quantize_chunk.restype = ctypes.c_size_t
    rows, depth = int(np.prod(values.shape[:-1])), values.shape[-1]
    numbers, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    made = np.zeros((*values.shape[:-1], depth // numbers * num_bytes), np.uint8)
    weights = np.ones(depth, np.float32)
    sizes = (ctypes.c_int64(0), ctypes.c_int64(rows), ctypes.c_int64(depth))
    places = (ctypes.c_void_p(one.ctypes.data) for one in (values, made, weights))
    source, target, importance = places
    base.ggml_quantize_chunk(ctypes.c_int(kind.value), source, target, *sizes, importance)
    return made


def _with_tokenizer(writer: Any) -> None:
    """A token for each id, so that llama.cpp takes the file, and the tokenizer as it is."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    tokens = json.loads((DEMO / "tokenizer.json").read_text())
    names = {one["id"]: one["content"] for one in tokens["added_tokens"]}
    size = json.loads((DEMO / "config.json").read_text())["vocab_size"]
    writer.add_token_list([names.get(number, f"<{number}>") for number in range(size)])
    writer.add_token_types([3 if number < 3 else 1 for number in range(size)])
    writer.add_token_merges(["< >"])
    writer.add_eos_token_id(2)
    writer.add_string("tokenizer.huggingface.json", (DEMO / "tokenizer.json").read_text())
