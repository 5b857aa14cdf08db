"""Writes a checkpoint in the forms of quantization tools, each with the tool's own code.

Run by the Python of an environment that `benchmarks.peers.setup formats modelopt gptqmodel` makes:
`form_tools.py NAME SOURCE TARGET` writes the folder TARGET; `form_tools.py` prints NAME and tool, line by line,
of the tools that are there. Weights are rounded to the nearest wherever the tool lets one choose; what needs inputs
gets random token ids.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import torch

Write = Callable[[Path, Path], None]


def _model(source: Path, **more: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, **more).eval()


def random_ids(count: int) -> torch.Tensor:
    """[count, 64] token ids, each time the same."""
    return torch.randint(3, 3000, (count, 64), generator=torch.Generator().manual_seed(0))


def auto_round(layout: str, **settings: Any) -> Write:
    """auto-round in the layout of itself, of GPTQ or of AWQ. settings  of its class."""

    def write(source: Path, target: Path) -> None:
        from auto_round import AutoRound
        from transformers import AutoTokenizer

        rounding = AutoRound(
            _model(source),
            AutoTokenizer.from_pretrained(source),
            iters=0,
            disable_opt_rtn=True,
            device_map="cpu",
            dataset=[{"input_ids": row[None]} for row in random_ids(4)],
            nsamples=4,
            seqlen=64,
            **settings,
        )
        rounding.quantize_and_save(str(target), format=layout)
        for made in target.glob("*/model.safetensors"):  # the tool makes a folder in the folder
            for file in made.parent.iterdir():
                file.rename(target / file.name)

    return write


def integers(layout: str, bits: int, *, symmetric: bool = True, **more: Any) -> Write:
    """auto-round's integers in groups of 32."""
    return auto_round(layout, bits=bits, group_size=32, sym=symmetric, **more)


def modelopt(name: str) -> Write:
    """nvidia-modelopt's configuration of a name, calibrated with random ids."""

    def write(source: Path, target: Path) -> None:
        import modelopt.torch.quantization as methods
        from modelopt.torch.export import export_hf_checkpoint

        config = copy.deepcopy(getattr(methods, name))
        model = methods.quantize(_model(source), config, lambda model: model(random_ids(4)))
        with torch.inference_mode():
            export_hf_checkpoint(model, export_dir=str(target))

    return write


def gptqmodel(bits: int, **settings: Any) -> Write:
    """GPTQModel in groups of 32, calibrated with random ids."""

    def write(source: Path, target: Path) -> None:
        import transformers  # noqa: F401  looks for torchvision, which the next lines only feign

        for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
            feigned = sys.modules[name] = MagicMock()
            feigned.__spec__ = ModuleSpec(name, None)
        os.environ["GPTQMODEL_CPU_WORKERS"] = "2"  # on two cores it starts fewer than it needs
        from gptqmodel import GPTQModel, QuantizeConfig

        config = QuantizeConfig(bits=bits, group_size=32, **settings)
        model = GPTQModel.load(str(source), config, device="cpu")
        rows = [{"input_ids": row, "attention_mask": [1] * 64} for row in random_ids(64).tolist()]
        model.quantize(rows, batch_size=8)
        model.save(str(target))

    return write


def torchao(name: str, **settings: Any) -> Write:
    """torchao's configuration of a name, saved by Transformers. group, is_one  of what has a scale; none is rows."""

    def write(source: Path, target: Path) -> None:
        import torchao.quantization as methods
        from transformers import TorchAoConfig

        how = {key: value for key, value in settings.items() if key not in ("group", "is_one")}
        if "group" in settings:
            how["granularity"] = methods.PerGroup(settings["group"])
        if "is_one" in settings:
            how["granularity"] = methods.PerTensor()
        config = TorchAoConfig(getattr(methods, name)(**how))
        _model(source, quantization_config=config).save_pretrained(target)

    return write


def hqq(bits: int, axis: int = 1) -> Write:
    """hqq layer by layer, groups of 64, in the files of a checkpoint."""

    def write(source: Path, target: Path) -> None:
        from hqq.core.quantize import BaseQuantizeConfig, HQQLinear
        from safetensors.torch import load_file, save_file

        settings = BaseQuantizeConfig(nbits=bits, group_size=64, axis=axis)
        stored: dict[str, torch.Tensor] = {}
        meant: dict[str, torch.Tensor] = {}
        for name, weight in load_file(source / "model.safetensors").items():
            if not name.endswith("_proj.weight"):
                stored[name] = meant[name] = weight
                continue
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight.data = weight.float()
            made = HQQLinear(layer, settings, compute_dtype=torch.float32, device="cpu")
            meant[name] = made.dequantize().float().contiguous()
            stem = name.removesuffix(".weight")
            for end, part in made.state_dict().items():
                stored[f"{stem}.{end}"] = part.clone().contiguous()
        floats = target / "floats"
        floats.mkdir(parents=True)
        save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
        save_file(meant, floats / "model.safetensors", metadata={"format": "pt"})
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            shutil.copy(source / file, floats / file)
        config = json.loads((source / "config.json").read_text())
        config["quantization_config"] = {"quant_method": "hqq", "quant_config": settings}
        (target / "config.json").write_text(json.dumps(config, default=str))

    return write


def quark(weights: str, inputs: str = "", *, cache: str = "", **settings: Any) -> Write:
    """amd-quark's exporter. weights, inputs, cache  names of its specifications; calibrated with random ids."""

    def write(source: Path, target: Path) -> None:
        from quark.torch import ModelQuantizer, export_safetensors
        from quark.torch.quantization.config import config as quark_config
        from torch.utils.data import DataLoader

        def spec(name: str) -> Any:
            if not name:
                return None
            fixed = {"observer_method": "min_max"} if "PerTensor" in name else {}
            if name.startswith("Int8PerTensor"):
                fixed |= {"symmetric": True, "scale_type": "float", "round_method": "half_even"}
            if name == weights:
                fixed |= settings
            return getattr(quark_config, name)(is_dynamic=False, **fixed).to_quantization_spec()

        parts = {"weight": spec(weights), "input_tensors": spec(inputs)}
        layer = quark_config.QLayerConfig(**parts)
        more: dict[str, Any] = {}
        if cache:
            kept = quark_config.QLayerConfig(**parts, output_tensors=spec(cache))
            names = {"*k_proj": kept, "*v_proj": kept}
            more = {"layer_quant_config": names, "kv_cache_quant_config": names}
        config = quark_config.QConfig(global_quant_config=layer, exclude=["lm_head"], **more)
        tool = ModelQuantizer(config)
        model = tool.quantize_model(_model(source), DataLoader(random_ids(4), batch_size=1))
        export_safetensors(tool.freeze(model), str(target))

    return write


GROUPS = {"ch_axis": -1, "group_size": 32, "scale_type": "float"}
ROWS = {"ch_axis": 0, "symmetric": True, "scale_type": "float"}
EIGHT_BITS_DOWN = {f"model.layers.{layer}.mlp.down_proj": {"bits": 8} for layer in range(5)}
TOOLS: dict[str, tuple[str, Write]] = {
    "GPTQ 4 bits g32": ("auto-round", integers("auto_gptq", 4)),
    "GPTQ 4 bits g32, zero points": ("auto-round", integers("auto_gptq", 4, symmetric=False)),
    "GPTQ 8 bits g32": ("auto-round", integers("auto_gptq", 8)),
    "GPTQ 2 bits g32, zero points": ("auto-round", integers("auto_gptq", 2, symmetric=False)),
    "GPTQ 3 bits g32": ("GPTQModel", gptqmodel(3, desc_act=False)),
    "GPTQ 2 bits g32": ("GPTQModel", gptqmodel(2, desc_act=False)),
    "GPTQ 4 bits g32, act-order": ("GPTQModel", gptqmodel(4, desc_act=True)),
    "GPTQ `dynamic`: 4 bits, down 8, one layer plain": (
        "GPTQModel",
        gptqmodel(
            4,
            desc_act=False,
            dynamic={r"+:.*down_proj": {"bits": 8}, r"-:.*layers\.0\..*o_proj": {}},
        ),
    ),
    "AWQ 4 bits g32": ("auto-round", integers("auto_awq", 4, symmetric=False)),
    "AutoRound 4 bits g32": ("auto-round", integers("auto_round", 4)),
    "AutoRound 4 bits g32, down 8 bits": (
        "auto-round",
        integers("auto_round", 4, layer_config=EIGHT_BITS_DOWN),
    ),
    "AutoRound FP8, squares of 128": ("auto-round", auto_round("auto_round", scheme="FP8_BLOCK")),
    "AutoRound NVFP4": ("auto-round", auto_round("auto_round", scheme="NVFP4")),
    "AutoRound MXFP4": ("auto-round", auto_round("auto_round", scheme="MXFP4")),
    "AutoRound MXFP8": ("auto-round", auto_round("auto_round", scheme="MXFP8")),
    "modelopt FP8": ("nvidia-modelopt", modelopt("FP8_DEFAULT_CFG")),
    "modelopt FP8, by channel": ("nvidia-modelopt", modelopt("FP8_PER_CHANNEL_PER_TOKEN_CFG")),
    "modelopt FP8, squares of 128": (
        "nvidia-modelopt",
        modelopt("FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG"),
    ),
    "modelopt int8": ("nvidia-modelopt", modelopt("INT8_WEIGHT_ONLY_CFG")),
    "modelopt int8, inputs of 8 bits": ("nvidia-modelopt", modelopt("INT8_DEFAULT_CFG")),
    "modelopt NVFP4": ("nvidia-modelopt", modelopt("NVFP4_DEFAULT_CFG")),
    "modelopt MXFP4": ("nvidia-modelopt", modelopt("MXFP4_DEFAULT_CFG")),
    "modelopt MXFP8": ("nvidia-modelopt", modelopt("MXFP8_DEFAULT_CFG")),
    "Quark int4 g32": ("amd-quark", quark("Int4PerGroupSpec", symmetric=True, **GROUPS)),
    "Quark uint4 g32": ("amd-quark", quark("Uint4PerGroupSpec", symmetric=False, **GROUPS)),
    "Quark int8, one scale": ("amd-quark", quark("Int8PerTensorSpec")),
    "Quark int8, inputs of 8 bits": (
        "amd-quark",
        quark("Int8PerChannelSpec", "Int8PerTensorSpec", **ROWS),
    ),
    "Quark FP8": ("amd-quark", quark("FP8E4M3PerTensorSpec", "FP8E4M3PerTensorSpec")),
    "Quark FP8, by channel": ("amd-quark", quark("FP8E4M3PerChannelSpec", ch_axis=0)),
    "Quark MXFP4": ("amd-quark", quark("OCP_MXFP4Spec", ch_axis=-1)),
    "Quark MXFP6 (e2m3)": ("amd-quark", quark("OCP_MXFP6E2M3Spec", ch_axis=-1)),
    "Quark MXFP6 (e3m2)": ("amd-quark", quark("OCP_MXFP6E3M2Spec", ch_axis=-1)),
    "HQQ 8 bits g64": ("hqq", hqq(8)),
    "HQQ 4 bits g64": ("hqq", hqq(4)),
    "HQQ 3 bits g64": ("hqq", hqq(3)),
    "HQQ 2 bits g64": ("hqq", hqq(2)),
    "HQQ 1 bit g64": ("hqq", hqq(1)),
    "HQQ 4 bits g64, axis 0": ("hqq", hqq(4, axis=0)),
    "torchao int8": ("torchao", torchao("Int8WeightOnlyConfig")),
    "torchao int8 g32": ("torchao", torchao("Int8WeightOnlyConfig", group=32)),
    "torchao int8, inputs of 8 bits": ("torchao", torchao("Int8DynamicActivationInt8WeightConfig")),
    "torchao int4 g32": (
        "torchao",
        torchao("IntxWeightOnlyConfig", group=32, weight_dtype=torch.int4),
    ),
    "torchao float8": ("torchao", torchao("Float8WeightOnlyConfig")),
    "torchao float8, one scale": ("torchao", torchao("Float8WeightOnlyConfig", is_one=True)),
}
"""By the name of the form: the tool's package, and what writes a folder."""


def main(words: list[str]) -> int:
    """Writes one form, or lists all."""
    if not words:
        for name, (tool, _) in TOOLS.items():
            with contextlib.suppress(PackageNotFoundError):  # of another environment
                print(f"{name}\t{tool} {version(tool)}")
        return 0
    name, source, target = words[0], Path(words[1]), Path(words[2])
    TOOLS[name][1](source, target)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / file, target / file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
