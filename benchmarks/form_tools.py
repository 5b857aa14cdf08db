"""Writes a checkpoint in the forms of quantization tools, each with the tool's own code.

Run by the Python of the environment that `benchmarks.peers.setup formats` makes:
`form_tools.py NAME SOURCE TARGET` writes the folder TARGET; `form_tools.py` prints NAME and tool, line by line.
Weights are rounded to the nearest wherever the tool lets one choose.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

Write = Callable[[Path, Path], None]


def _model(source: Path, **more: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(source, dtype=torch.bfloat16, **more).eval()


def auto_round(layout: str, bits: int, *, symmetric: bool = True) -> Write:
    """auto-round in the layout of itself, of GPTQ or of AWQ: groups of 32, no calibration."""

    def write(source: Path, target: Path) -> None:
        from auto_round import AutoRound
        from transformers import AutoTokenizer

        rounding = AutoRound(
            _model(source),
            AutoTokenizer.from_pretrained(source),
            bits=bits,
            group_size=32,
            sym=symmetric,
            iters=0,
            disable_opt_rtn=True,
            device_map="cpu",
        )
        rounding.quantize_and_save(str(target), format=layout)
        for made in target.glob("*/model.safetensors"):  # the tool makes a folder in the folder
            for file in made.parent.iterdir():
                file.rename(target / file.name)

    return write


def torchao(name: str, **settings: Any) -> Write:
    """torchao's configuration of a name, saved by Transformers."""

    def write(source: Path, target: Path) -> None:
        import torchao.quantization as methods
        from transformers import TorchAoConfig

        if "group" in settings:
            how = {"granularity": methods.PerGroup(settings["group"]), "weight_dtype": torch.int4}
        else:
            how = {}
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
        for name, weight in load_file(source / "model.safetensors").items():
            if not name.endswith("_proj.weight"):
                stored[name] = weight
                continue
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
            layer.weight.data = weight.float()
            made = HQQLinear(layer, settings, compute_dtype=torch.float32, device="cpu")
            stem = name.removesuffix(".weight")
            for end, part in made.state_dict().items():
                stored[f"{stem}.{end}"] = part.clone().contiguous()
        target.mkdir(parents=True)
        save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
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
        ids = torch.randint(0, 3000, (4, 64), generator=torch.Generator().manual_seed(0))
        model = tool.quantize_model(_model(source), DataLoader(ids, batch_size=1))
        export_safetensors(tool.freeze(model), str(target))

    return write


GROUPS = {"ch_axis": -1, "group_size": 32, "scale_type": "float"}
TOOLS: dict[str, tuple[str, Write]] = {
    "GPTQ 4 bits g32": ("auto-round", auto_round("auto_gptq", 4)),
    "GPTQ 4 bits g32, zero points": ("auto-round", auto_round("auto_gptq", 4, symmetric=False)),
    "GPTQ 8 bits g32": ("auto-round", auto_round("auto_gptq", 8)),
    "AWQ 4 bits g32": ("auto-round", auto_round("auto_awq", 4, symmetric=False)),
    "AutoRound 4 bits g32": ("auto-round", auto_round("auto_round", 4)),
    "Quark int4 g32": ("amd-quark", quark("Int4PerGroupSpec", symmetric=True, **GROUPS)),
    "Quark uint4 g32": ("amd-quark", quark("Uint4PerGroupSpec", symmetric=False, **GROUPS)),
    "Quark int8, inputs of 8 bits": (
        "amd-quark",
        quark(
            "Int8PerChannelSpec", "Int8PerTensorSpec",
            ch_axis=0, symmetric=True, scale_type="float",
        ),
    ),
    "Quark FP8": ("amd-quark", quark("FP8E4M3PerTensorSpec", "FP8E4M3PerTensorSpec")),
    "Quark MXFP4": ("amd-quark", quark("OCP_MXFP4Spec", ch_axis=-1)),
    "HQQ 8 bits g64": ("hqq", hqq(8)),
    "HQQ 4 bits g64": ("hqq", hqq(4)),
    "HQQ 3 bits g64": ("hqq", hqq(3)),
    "HQQ 2 bits g64": ("hqq", hqq(2)),
    "HQQ 4 bits g64, axis 0": ("hqq", hqq(4, axis=0)),
    "torchao int8": ("torchao", torchao("Int8WeightOnlyConfig")),
    "torchao int8, inputs of 8 bits": ("torchao", torchao("Int8DynamicActivationInt8WeightConfig")),
    "torchao int4 g32": ("torchao", torchao("IntxWeightOnlyConfig", group=32)),
    "torchao float8": ("torchao", torchao("Float8WeightOnlyConfig")),
}  # fmt: skip
"""By the name of the form: the tool's package, and what writes a folder."""


def main(words: list[str]) -> int:
    """Writes one form, or lists all."""
    if not words:
        for name, (tool, _) in TOOLS.items():
            print(f"{name}\t{tool} {version(tool)}")
        return 0
    name, source, target = words[0], Path(words[1]), Path(words[2])
    TOOLS[name][1](source, target)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / file, target / file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
