"""The demo model in the forms of quantized checkpoints, for `benchmarks.quantization` to ask.

Each is written by the format's own tool where that runs on a CPU, else by the writers of the tests, which are
independent of the readers. Weights are rounded to the nearest, but for GPTQModel's.
"""

from __future__ import annotations

import ctypes
import functools
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import load_file

from benchmarks.form_tools import TOOLS
from benchmarks.peers.conversion import run_tool
from benchmarks.peers.roster import SCRIPTS
from benchmarks.peers.store import DEFAULT_ROOT, Store
from benchmarks.written_forms import (
    DEMO,
    FLOATS,
    OURS,
    TURNED,
    put_folder,
    write_form,
    write_pruned,
    write_turned,
)
from tests.models.gguf_writer import Kind, write_gguf

STORE = Store.at(DEFAULT_ROOT)
ENVIRONMENTS = ("formats", "modelopt", "gptqmodel")
"""Of `benchmarks.peers.setup`, for tools that cannot be beside each other."""


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
    yield Form(PRUNED, "", lambda folder: write_pruned(folder / "pruned"))
    yield from _gguf_forms()
    for name, (writer, settings, write) in OURS.items():
        yield Form(name, writer, _under(name, functools.partial(write_form, settings, write)))
    for name, (writer, turns, args) in TURNED.items():
        yield Form(name, writer, _under(name, functools.partial(write_turned, turns, args)))
    seen: set[str] = set()  # a tool may be in several environments
    for environment in ENVIRONMENTS:
        found = [form for form in _tools_forms(environment) if form.name not in seen]
        seen.update(form.name for form in found)
        yield from found


def _under(name: str, write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda folder: write(folder / name.replace(" ", "-"))


def floats_of(path: Path) -> Path | None:
    """A plain checkpoint of the numbers that a form stands for, by whoever wrote it; None where it is not told."""
    if path.is_dir():
        return path / FLOATS if (path / FLOATS).is_dir() else None
    size = json.loads((DEMO / "config.json").read_text())["num_hidden_layers"]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, size)
    found = {one.name: one for one in gguf.GGUFReader(path).tensors}
    tensors = {}
    for name, weight in load_file(DEMO / "model.safetensors").items():
        stored = found[f"{names.get_name(name.removesuffix('.weight'))}.weight"]
        values = gguf.quants.dequantize(stored.data, stored.tensor_type)
        tensors[name] = torch.from_numpy(np.array(values, np.float32)).view(weight.shape)
    put_folder(path.with_suffix(""), tensors)
    return path.with_suffix("")


def _tools_forms(environment: str) -> Iterator[Form]:
    """Those of `form_tools` whose tools an environment has, made by its Python."""
    python, script = STORE.python(environment), Path("benchmarks/form_tools.py")
    if not python.is_file():
        words = f"run python -m benchmarks.peers.setup {environment}"
        print(f"# tools are not here: {words}", flush=True)
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
    *("NVFP4", "BF16", "F16", "F32"),
)
"""Types of all matrices but the embedding, by ggml's function for rows, each input as important as any."""


PRUNED = "bfloat16, 2:4"
NAMES = [
    *("bfloat16", PRUNED),
    *(f"GGUF {kind}" for kind in ("F32", "F16", "BF16", *GGUF_KINDS, *GGUF_BLOCKS)),
    *(*TOOLS, *OURS, *TURNED),
]
"""Of all forms, whether their tools are here or not."""


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
    own = f"gguf {version('gguf')}"
    library = Path(package).parent / "lib" / "libggml-base.so"
    for kind in GGUF_BLOCKS:

        def blocks(folder: Path, kind: Kind = Kind[kind]) -> Path:
            target = folder / f"demo-{kind.name}.gguf"
            rows = functools.partial(_ggml_blocks, library)
            return write_gguf(
                DEMO, target, functools.partial(_type_of, kind), _with_tokenizer, rows
            )

        yield Form(f"GGUF {kind}", own if kind[0] == "F" else writer, blocks)


def _type_of(kind: Kind, name: str) -> Kind:
    """Rows of `ffn_down` are no whole blocks of 256; those and the embedding, which is the head too, get others."""
    if kind in (Kind.F16, Kind.BF16, Kind.F32, Kind.MXFP4, Kind.NVFP4):
        return Kind.Q8_0 if kind in (Kind.MXFP4, Kind.NVFP4) and "token_embd" in name else kind
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
