"""Checkpoints that come quantized, end to end: written by the formats' own libraries where they run here.

compressed-tensors and bitsandbytes are the libraries; GPTQ, AWQ, FP8 and MXFP4 are written below from their
public descriptions, which shares no code with the reader.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from quire.models.build import build_decoder
from quire.models.loading.reader import checkpoint_source
from quire.models.registry import ModelDescription, describe, weight_map_of
from quire.ops.linear import LINEAR
from quire.ops.registry import Table
from quire.protocol.errors import ModelLoadError
from quire.quant.schemes.checkpoint import scheme_for
from tests.models import harness
from tests.models.case import COMMON

IDS = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(5)).tolist()
CONFIG = COMMON | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "head_dim": 32,
    "vocab_size": 96,
    "hidden_size": 128,
    "intermediate_size": 256,
    "rms_norm_eps": 1e-5,
}
Tensors = dict[str, torch.Tensor]
Written = tuple[Tensors, torch.Tensor]
"""What is stored in place of a weight, by the end of its name, and the numbers that it stands for."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return harness.write_checkpoint(tmp_path_factory.mktemp("plain"), CONFIG)


def is_quantized(name: str) -> bool:
    return name.endswith("_proj.weight")


def rewritten(
    folder: Path, to: Path, settings: dict[str, Any], write: Callable[[str, torch.Tensor], Written]
) -> tuple[Path, Path]:
    """The folder quantized, and the folder of the numbers that it then stands for."""
    stored: Tensors = {}
    meant: Tensors = {}
    notes = {"format": "pt"}
    for name, weight in load_file(folder / "model.safetensors").items():
        meant[name] = stored[name] = weight
        if is_quantized(name):
            del stored[name]
            notes[name] = json.dumps({"_type": "", "_data": {"shape": list(weight.shape)}})
            parts, meant[name] = write(name, weight)
            stem = name.removesuffix(".weight")
            stored |= {f"{stem}.{end}": part.contiguous() for end, part in parts.items()}
    for where, tensors in ((to / "quantized", stored), (to / "meant", meant)):
        where.mkdir(parents=True)
        tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        save_file(tensors, where / "model.safetensors", metadata=notes)
    (to / "meant" / "config.json").write_text(json.dumps(CONFIG))
    config = CONFIG | {"quantization_config": settings}
    (to / "quantized" / "config.json").write_text(json.dumps(config))
    return to / "quantized", to / "meant"


def logits(description: ModelDescription) -> torch.Tensor:
    decoder = build_decoder(
        description,
        Table(),
        dtype=torch.float32,
        device=torch.device("cpu"),
        max_model_len=64,
        scheme=scheme_for(None, description.quantization, description.formats, "cpu"),
    )
    return harness.our_logits(decoder, IDS, max_len=64)


def check(folders: tuple[Path, Path], formats: set[str], tolerance: float = 5e-3) -> None:
    """Formats, and logits against Transformers with the numbers that are meant."""
    ours = describe(str(folders[0]))
    assert {format.name for format in ours.formats.by_name.values()} == formats
    expected = harness.their_logits(folders[1], IDS)
    found = logits(ours)
    # Rows are rounded to 16 bits where weights are integers; nothing else differs.
    assert (found - expected).abs().max() / expected.std() < tolerance


def groups_of(weight: torch.Tensor, size: int) -> torch.Tensor:
    return weight.view(weight.shape[0], -1, size if size > 0 else weight.shape[1])


def rounded(
    weight: torch.Tensor, bits: int, size: int, symmetric: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """codes [N, K], scales and zeros [N, groups], and what they stand for: plain rounding to nearest."""
    parts, most = groups_of(weight, size), (1 << bits) - 1
    if symmetric:
        scales = (parts.abs().amax(-1) * 2 / most).half().float()
        zeros = torch.full_like(scales, 1 << bits - 1)
    else:
        low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
        scales = ((high - low) / most).half().float()
        zeros = (-low / scales).round().clamp(0, most)
    codes = (parts / scales[..., None] + zeros[..., None]).round().clamp(0, most)
    meant = (codes - zeros[..., None]) * scales[..., None]
    return codes.view_as(weight).long(), scales, zeros.long(), meant.view_as(weight)


def bit_words(values: torch.Tensor, bits: int) -> torch.Tensor:
    """[.., n] whole numbers as [.., n * bits / 32] int32, one stream of bits, the lowest first."""
    ones = values.unsqueeze(-1) >> torch.arange(bits) & 1
    words = ones.flatten(-2).unflatten(-1, (-1, 32))
    total = (words << torch.arange(32)).sum(-1)
    return torch.where(total >= 1 << 31, total - (1 << 32), total).to(torch.int32)


def write_gptq(bits: int, size: int, symmetric: bool, add: int, order: str = "") -> Any:
    def write(name: str, weight: torch.Tensor) -> Written:
        depth = weight.shape[1]
        group = size if size > 0 else depth
        index = torch.arange(depth) // group
        permutation = torch.arange(depth)
        if order:
            generator = torch.Generator().manual_seed(zlib.crc32(order.encode()))
            permutation = torch.randperm(depth, generator=generator)
            index = index[torch.argsort(permutation)]
        codes, scales, zeros, meant = rounded(weight[:, permutation], bits, group, symmetric)
        back = torch.argsort(permutation)
        parts = {
            "qweight": bit_words(codes[:, back], bits).t(),
            "scales": scales.t().half(),
            "qzeros": bit_words((zeros - add).t() & (1 << bits) - 1, bits),
            "g_idx": index.to(torch.int32),
        }
        return parts, meant[:, back]

    return write


@pytest.mark.parametrize(
    ("bits", "size", "symmetric", "version", "formats"),
    [
        (4, 32, True, "gptq", {"int4_g32"}),
        (4, 128, True, "gptq_v2", {"int4", "int4_g128"}),  # inputs of 128 are one group
        (4, 64, False, "gptq_v2", {"int4_g64_zp"}),
        (4, -1, True, "gptq", {"int4"}),
        (8, 32, True, "gptq", {"int8_g32"}),
        (8, 32, False, "gptq_v2", {"int8_g32_zp"}),
        (8, -1, False, "gptq", {"int8_zp"}),
        (4, 32, False, "gptq", {"int4_g32_zp"}),
        (3, 32, True, "gptq", {"int4_g32"}),
        (2, 64, True, "gptq_v2", {"int4_g64"}),
        (3, 32, False, "gptq", {"int4_g32"}),
        (2, 32, False, "gptq_v2", {"int4_g32"}),
    ],
)
def test_gptq(
    bits: int,
    size: int,
    symmetric: bool,
    version: str,
    formats: set[str],
    folder: Path,
    tmp_path: Path,
) -> None:
    settings = {"quant_method": "gptq", "bits": bits, "group_size": size, "sym": symmetric}
    settings |= {"desc_act": False, "checkpoint_format": version}
    write = write_gptq(bits, size, symmetric, int(version == "gptq"))
    check(rewritten(folder, tmp_path, settings, write), formats)


@pytest.mark.parametrize("order", ["one for a product", "others", "of_neighbours"])
@pytest.mark.parametrize(
    ("bits", "symmetric"), [(4, True), (4, False), (8, True), (8, False), (3, True)]
)
def test_gptq_with_an_order_of_inputs(
    bits: int, symmetric: bool, order: str, folder: Path, tmp_path: Path
) -> None:
    """Parts of a product that have the same order stay as small as they are; others become floats."""
    settings = {"quant_method": "gptq", "bits": bits, "group_size": 32, "sym": symmetric}

    def write(name: str, weight: torch.Tensor) -> Written:
        seed = "" if order == "of_neighbours" else order if order == "one for a product" else name
        return write_gptq(bits, 32, symmetric, 1, seed)(name, weight)  # type: ignore[no-any-return]

    plain = f"int{8 if bits == 8 else 4}_g32" + "_zp" * (not symmetric)
    formats = {plain} if order == "of_neighbours" else {f"{plain}_order"}
    folders = rewritten(folder, tmp_path, settings | {"desc_act": True}, write)
    check(folders, formats)
    names = set(describe(str(folders[0])).formats.by_name)
    assert ("layers.0.mixer.qkv.weight" in names) == (order != "others")
    assert "layers.1.mixer.out.weight" in names


def test_gptq_with_other_bits_in_some_layers(folder: Path, tmp_path: Path) -> None:
    eight, four = write_gptq(8, 32, True, 1), write_gptq(4, 32, True, 1)
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}

    def write(name: str, weight: torch.Tensor) -> Written:
        return (eight if "v_proj" in name or "layers.1.mlp" in name else four)(name, weight)

    folders = rewritten(folder, tmp_path, settings, write)
    formats = describe(str(folders[0])).formats.by_name
    assert formats["layers.0.mixer.qkv.weight"].name == "int8_g32"
    assert formats["layers.0.feed_forward.down.weight"].name == "int4_g32"
    assert formats["layers.1.feed_forward.down.weight"].name == "int8_g32"
    check(folders, {"int4_g32", "int8_g32"})


def test_gptq_with_settings_of_single_layers(folder: Path, tmp_path: Path) -> None:
    """`dynamic` as GPTQModel writes it: other zero points and groups, and layers that are left."""
    settings = {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": True}
    dynamic: dict[str, Any] = {
        r"-:.*layers\.1\..*o_proj": {},
        r"+:.*down_proj": {"sym": False, "group_size": 64},
        r".*layers\.0\..*o_proj": {"bits": 8},
    }

    def write(name: str, weight: torch.Tensor) -> Written:
        if "o_proj" in name:
            is_left = "layers.1" in name
            return (
                ({"weight": weight}, weight)
                if is_left
                else write_gptq(8, 32, True, 1)(name, weight)
            )
        is_other = "down_proj" in name
        return write_gptq(4, 64 if is_other else 32, not is_other, 1)(name, weight)  # type: ignore[no-any-return]

    folders = rewritten(folder, tmp_path, settings | {"dynamic": dynamic}, write)
    formats = describe(str(folders[0])).formats.by_name
    assert formats["layers.1.feed_forward.down.weight"].name == "int4_g64_zp"
    assert "layers.1.mixer.out.weight" not in formats
    check(folders, {"int4_g32", "int4_g64_zp", "int8_g32"})
    wrong = {"no expression": {"+:(": {}}, "must be an object": ["layers"]}
    for number, (words, given) in enumerate(wrong.items()):
        place = tmp_path / f"wrong{number}"
        with pytest.raises(ModelLoadError, match=words):
            describe(str(rewritten(folder, place, settings | {"dynamic": given}, write)[0]))


def awq_words(values: torch.Tensor) -> torch.Tensor:
    """[R, N] as [R, N / 8] int32: column 0, 2, 4, 6, 1, 3, 5, 7 of eight, from the lowest bits."""
    ordered = values.unflatten(-1, (-1, 8))[..., [0, 2, 4, 6, 1, 3, 5, 7]]
    return bit_words(ordered, 4).flatten(-2)


def write_awq(name: str, weight: torch.Tensor) -> Written:
    codes, scales, zeros, meant = rounded(weight, 4, 32, symmetric=False)
    parts = {
        "qweight": awq_words(codes.t()),
        "qzeros": awq_words(zeros.t()),
        "scales": scales.t().half(),
    }
    return parts, meant


def test_awq(folder: Path, tmp_path: Path) -> None:
    settings = {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
    }
    check(rewritten(folder, tmp_path, settings, write_awq), {"int4_g32_zp"})


def test_layers_left_as_floats(folder: Path, tmp_path: Path) -> None:
    """Half of a model, and one part of a fused weight: that one is floats as a whole."""
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}

    def write(name: str, weight: torch.Tensor) -> Written:
        if "layers.1" in name or "k_proj" in name:
            return {"weight": weight}, weight
        return write_awq(name, weight)

    folders = rewritten(folder, tmp_path, settings, write)
    assert set(describe(str(folders[0])).formats.by_name) == {
        "layers.0.mixer.out.weight",
        "layers.0.feed_forward.gate_up.weight",
        "layers.0.feed_forward.down.weight",
    }
    check(folders, {"int4_g32_zp"})


def write_fp8(style: str) -> Any:
    def write(name: str, weight: torch.Tensor) -> Written:
        if style == "block":
            rows, columns = weight.shape
            squares = weight.view(rows // 64, 64, columns // 128, 128)
            if rows % 128 == 0:
                squares = weight.view(rows // 128, 128, columns // 128, 128)
            limit = squares.abs().amax((1, 3))
            scales = limit / 448.0
            codes = (squares / scales[:, None, :, None]).to(torch.float8_e4m3fn)
            meant = codes.float() * scales[:, None, :, None]
            parts = {"weight": codes.view(weight.shape), "weight_scale_inv": scales}
            return parts, meant.view(weight.shape)
        axis = {"tensor": None, "channel": 1}[style]
        limit = weight.abs().amax() if axis is None else weight.abs().amax(1, keepdim=True)
        scales = limit / 448.0
        codes = (weight / scales).to(torch.float8_e4m3fn)
        parts = {"weight": codes, "weight_scale": scales, "input_scale": torch.tensor(0.5)}
        return parts, codes.float() * scales

    return write


@pytest.mark.parametrize(
    ("style", "method", "formats"),
    [
        ("tensor", "fp8", {"fp8"}),
        ("channel", "fbgemm_fp8", {"fp8"}),
        ("tensor", "modelopt", {"fp8"}),
    ],
)
def test_fp8(style: str, method: str, formats: set[str], folder: Path, tmp_path: Path) -> None:
    settings = {"quant_method": method, "activation_scheme": "static"}
    check(rewritten(folder, tmp_path, settings, write_fp8(style)), formats)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose matrices are whole squares of 128."""
    config = CONFIG | {"num_key_value_heads": 4}
    return harness.write_checkpoint(tmp_path_factory.mktemp("wide"), config)


def test_fp8_in_squares(wide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONFIG, "num_key_value_heads", 4)
    settings = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    check(rewritten(wide, tmp_path, settings, write_fp8("block")), {"fp8_g128"})


@pytest.mark.parametrize("inputs", ["", "_rows8_fixed"])
def test_modelopts_int8(inputs: str, folder: Path, tmp_path: Path) -> None:
    def write(name: str, weight: torch.Tensor) -> Written:
        scales = weight.abs().amax(1) / 127
        codes = (weight / scales[:, None]).round()
        parts = {"weight": codes.to(torch.int8), "weight_scale": scales}
        if inputs:
            parts["input_scale"] = torch.tensor(0.05)
        return parts, codes * scales[:, None]

    settings = {"quant_method": "modelopt", "quant_algo": "W8A8_SQ_PER_CHANNEL"}
    folders = rewritten(folder, tmp_path, settings, write)
    if inputs:
        ours = describe(str(folders[0]))
        assert {format.name for format in ours.formats.by_name.values()} == {f"int8{inputs}"}
        model = AutoModelForCausalLM.from_pretrained(folders[1], dtype=torch.float32).eval()
        for name, module in model.named_modules():
            if is_quantized(f"{name}.weight"):
                module.register_forward_pre_hook(
                    lambda _, x: ((x[0] / 0.05).round().clamp(-128, 127) * 0.05,)
                )
        with torch.inference_mode():
            want = model(torch.tensor([IDS])).logits[0]
        # From layer to layer the last bit of a float32 may send a number to the next code.
        assert (logits(ours) - want).norm() / want.norm() < 2e-2
    else:
        check(folders, {"int8"})

    def with_factors(name: str, weight: torch.Tensor) -> Written:
        parts, meant = write(name, weight)
        return parts | {"pre_quant_scale": torch.ones(weight.shape[1])}, meant

    with pytest.raises(ModelLoadError, match="a matrix whose inputs have no factors is"):
        describe(str(rewritten(folder, tmp_path / "factors", settings, with_factors)[0]))


def test_modelopts_squares(
    wide: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales with an axis for each place in a square, of size one."""

    def write(name: str, weight: torch.Tensor) -> Written:
        parts, meant = write_fp8("block")(name, weight)
        return {
            "weight": parts["weight"],
            "weight_scale": parts["weight_scale_inv"][:, None, :, None],
        }, meant

    settings = {"quant_method": "modelopt", "quant_algo": "fp8_pb_wo"}
    with monkeypatch.context() as patch:
        patch.setitem(CONFIG, "num_key_value_heads", 4)
        check(rewritten(wide, tmp_path, settings, write), {"fp8_g128"})

    def short(name: str, weight: torch.Tensor) -> Written:
        parts, meant = write_fp8("channel")(name, weight)
        return parts | {"weight_scale": parts["weight_scale"][:1, :, None, None]}, meant

    monkeypatch.setitem(CONFIG, "intermediate_size", 256)
    with pytest.raises(ModelLoadError, match=r"weight_scale' is F32 \[1, 1, 1, 1\]"):
        describe(str(rewritten(folder, tmp_path / "short", settings, short)[0]))


COMPRESSED: dict[str, tuple[dict[str, Any], str, set[str]]] = {
    "w4a16": (
        {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
        "pack-quantized",
        {"int4_g32"},
    ),
    "w4a16_asym": (
        {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 64, "symmetric": False},
        "pack-quantized",
        {"int4_g64_zp"},
    ),
    "w3a16": (
        {"num_bits": 3, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True},
        "pack-quantized",
        {"int4_g32"},
    ),
    "w3a16_asym": (
        {"num_bits": 3, "type": "int", "strategy": "group", "group_size": 32, "symmetric": False},
        "pack-quantized",
        {"int4_g32"},
    ),
    "w2a16_asym": (
        {"num_bits": 2, "type": "int", "strategy": "group", "group_size": 32, "symmetric": False},
        "pack-quantized",
        {"int4_g32"},
    ),
    "w8a16": (
        {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True},
        "pack-quantized",
        {"int8"},
    ),
    "w8a8": (
        {"num_bits": 8, "type": "int", "strategy": "channel", "symmetric": True},
        "int-quantized",
        {"int8"},
    ),
    "w8a8_fp8": (
        {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True},
        "float-quantized",
        {"fp8"},
    ),
    "w8a8_fp8_tensor": (
        {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True},
        "float-quantized",
        {"fp8"},
    ),
    "nvfp4": (
        {
            "num_bits": 4,
            "type": "float",
            "strategy": "tensor_group",
            "group_size": 16,
            "symmetric": True,
        },
        "nvfp4-pack-quantized",
        {"int8_k"},
    ),
}


def write_compressed(args: dict[str, Any], style: str) -> Any:
    """With the library's own scales and compressor."""
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams

    weights = QuantizationArgs(**args)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, format=style)
    compressor = BaseCompressor.load_from_registry(style)

    def write(key: str, weight: torch.Tensor) -> Written:
        size = {"group": args.get("group_size"), "tensor_group": 16}.get(args["strategy"])
        parts = groups_of(weight, size or -1)
        if args["strategy"] == "tensor":
            low, high = weight.min().view(1), weight.max().view(1)
        else:
            low, high = parts.amin(-1), parts.amax(-1)
        extra: Tensors = {}
        if args["strategy"] == "tensor_group":
            extra["weight_global_scale"] = (448.0 * 6.0 / weight.abs().max()).view(1)
        scale, zero = calculate_qparams(
            low, high, weights, global_scale=extra.get("weight_global_scale")
        )
        state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero} | extra
        if args["symmetric"]:
            del state["weight_zero_point"]
        packed = compressor.compress(dict(state), scheme)
        meant = compressor.decompress(dict(packed), scheme)["weight"]
        return dict(packed), meant.float()

    return write


def compressed_settings(
    args: dict[str, Any], style: str, inputs: dict[str, Any] | None = None
) -> dict[str, Any]:
    group = {"targets": ["Linear"], "weights": args, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": style,
        "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }


@pytest.mark.parametrize("name", sorted(COMPRESSED))
def test_compressed_tensors(name: str, folder: Path, tmp_path: Path) -> None:
    args, style, formats = COMPRESSED[name]
    settings, write = compressed_settings(args, style), write_compressed(args, style)
    # The library's NVFP4 comes out in bfloat16.
    tolerance = 5e-2 if name == "nvfp4" else 5e-3
    check(rewritten(folder, tmp_path, settings, write), formats, tolerance)


def write_in_order(name: str, weight: torch.Tensor) -> Written:
    """The library's 4 bits in groups of 32 that are no neighbours: codes in their places, a group for each."""
    depth = weight.shape[1]
    order = torch.randperm(depth, generator=torch.Generator().manual_seed(depth))
    write = write_compressed(COMPRESSED["w4a16"][0], "pack-quantized")
    parts, meant = write(name, weight[:, order])
    back = torch.argsort(order)
    packed = parts["weight_packed"].view(torch.uint8)
    codes = torch.stack((packed & 15, packed >> 4), -1).flatten(1)[:, back]
    parts["weight_packed"] = (codes[:, ::2] | codes[:, 1::2] << 4).contiguous().view(torch.int32)
    return parts | {"weight_g_idx": (back // 32).to(torch.int32)}, meant[:, back]


def test_compressed_tensors_with_an_order_of_inputs(folder: Path, tmp_path: Path) -> None:
    settings = compressed_settings(COMPRESSED["w4a16"][0] | {"actorder": "group"}, "pack-quantized")
    check(rewritten(folder, tmp_path, settings, write_in_order), {"int4_g32_order"})


@pytest.mark.parametrize("strategy", ["channel", "tensor"])
@pytest.mark.parametrize("inputs", ["row", "row_zp", "fixed", "fixed_zp"])
def test_inputs_of_eight_bits(inputs: str, strategy: str, folder: Path, tmp_path: Path) -> None:
    """W8A8 int8 as compressed-tensors computes it: its own rounding of the inputs of every product."""
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.lifecycle.forward import fake_quantize
    from compressed_tensors.quantization.utils import calculate_qparams

    is_dynamic, symmetric = inputs.startswith("row"), not inputs.endswith("zp")
    common: dict[str, Any] = {"num_bits": 8, "type": "int"}
    weights = QuantizationArgs(**common, strategy=strategy, symmetric=True)
    how = common | {"symmetric": symmetric, "dynamic": is_dynamic}
    how |= {"strategy": "token" if is_dynamic else "tensor"}
    args = QuantizationArgs(**how)
    fixed = {}  # by the end of a layer's name; parts of one product have the same

    def scale_of(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return calculate_qparams(x.amin(-1, keepdim=True), x.amax(-1, keepdim=True), args)

    def write(name: str, weight: torch.Tensor) -> Written:
        low, high = weight.amin(-1, keepdim=True), weight.amax(-1, keepdim=True)
        if strategy == "tensor":
            low, high = low.min().view(1), high.max().view(1)
        scale, _ = calculate_qparams(low, high, weights)
        codes = (weight / scale).round().clamp(-128, 127)
        parts = {"weight": codes.to(torch.int8), "weight_scale": scale}
        if not is_dynamic:
            place = name.removesuffix(".weight")
            limits = torch.tensor([-3.0 - len(place) % 7, 2.0 + len(place) % 5])
            if "v_proj" in name or "up_proj" in name:  # as their neighbours have
                limits = torch.tensor([-3.0, 4.5])
            if "q_proj" in name or "k_proj" in name or "gate_proj" in name:
                limits = torch.tensor([-3.0, 4.5])
            fixed[place] = scale_of(limits)
            parts["input_scale"] = fixed[place][0]
            if not symmetric:
                parts["input_zero_point"] = fixed[place][1]
        return parts, codes * scale

    settings = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                "weights": common | {"strategy": strategy, "symmetric": True},
                "input_activations": how,
            }
        },
    }
    folders = rewritten(folder, tmp_path, settings, write)
    model = AutoModelForCausalLM.from_pretrained(folders[1], dtype=torch.float32).eval()
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, module in model.named_modules():
        if is_quantized(f"{name}.weight"):

            def with_rounded_inputs(
                x: torch.Tensor, name: str = name, forward: Any = module.forward
            ) -> torch.Tensor:
                scale, zero = scale_of(x) if is_dynamic else fixed[name]
                out: torch.Tensor = forward(fake_quantize(x, scale, zero, args))
                seen[name.removeprefix("model.")] = x[0], out[0]
                return out

            module.forward = with_rounded_inputs
    with torch.inference_mode():
        want = model(torch.tensor([IDS])).logits[0]
    ours = describe(str(folders[0]))
    format = f"int8_rows8{'_fixed' if not is_dynamic else '' if symmetric else '_zp'}"
    assert {one.name for one in ours.formats.by_name.values()} == {format}
    products = {
        "mixer.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
        "mixer.out": ["self_attn.o_proj"],
        "feed_forward.gate_up": ["mlp.gate_proj", "mlp.up_proj"],
        "feed_forward.down": ["mlp.down_proj"],
    }
    more: Any = {"dtype": torch.float32, "device": torch.device("cpu"), "progress": False}
    more |= {"config": ours.hf_config, "formats": ours.formats}
    with checkpoint_source(folders[0], weight_map_of(ours), ours.spec, **more) as source:
        for name in ours.formats.by_name:
            layer, _, product = name.removesuffix(".weight").partition(".")[2].partition(".")
            places = [f"layers.{layer}.{part}" for part in products[product]]
            bound = Table().bind(LINEAR, "float32", format=format)
            x = seen[places[0]][0]
            packed = bound.provider.pack(source(name))  # type: ignore[attr-defined]
            theirs = torch.cat([seen[place][1] for place in places], -1)
            found = bound(x, packed)
            assert (found - theirs).abs().max() < 1e-5 * theirs.abs().max(), name
    # From layer to layer the last bit of a float32 may send a number to the next code.
    error = (logits(ours) - want).norm() / want.norm()
    unrounded = (harness.their_logits(folders[1], IDS) - want).norm() / want.norm()
    assert error < 2e-2 and error < unrounded / 1.5, (error, unrounded)


def test_parts_with_inputs_of_different_scales_keep_them_whole(
    folder: Path, tmp_path: Path
) -> None:
    """One product cannot round its rows in two ways."""

    def write(name: str, weight: torch.Tensor) -> Written:
        codes = (weight * 100).round().clamp(-128, 127)
        scale = torch.tensor([0.02 if "k_proj" in name else 0.05])
        parts = {"weight": codes.to(torch.int8), "weight_scale": torch.full((len(weight), 1), 0.01)}
        return parts | {"input_scale": scale}, codes * 0.01

    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "strategy": "channel"}}
    group |= {"input_activations": {"num_bits": 8, "strategy": "tensor", "dynamic": False}}
    settings = {"quant_method": "compressed-tensors", "config_groups": {"group_0": group}}
    ours = describe(str(rewritten(folder, tmp_path, settings, write)[0]))
    assert ours.formats.of("layers.0.mixer.qkv.weight").name == "int8"
    assert ours.formats.of("layers.0.mixer.out.weight").name == "int8_rows8_fixed"
    logits(ours)


def write_bitsandbytes(kind: str) -> Any:
    """With the library's own functions. kind  "int8", or a table's name and how its scales are kept."""
    library = pytest.importorskip("bitsandbytes", reason="its wheel does not load on this platform")

    def write(name: str, weight: torch.Tensor) -> Written:
        if kind == "int8":
            codes, limit, _ = library.functional.int8_vectorwise_quant(weight.half())
            parts = {
                "weight": codes,
                "SCB": limit,
                "weight_format": torch.tensor(0, dtype=torch.uint8),
            }
            return parts, library.functional.int8_vectorwise_dequant(codes, limit)
        packed, state = library.functional.quantize_4bit(
            weight, quant_type=kind[:3], compress_statistics="nested" in kind, blocksize=64
        )
        meant = library.functional.dequantize_4bit(packed, state)
        parts = {"weight": packed}
        parts |= {f"weight.{end}": value for end, value in state.as_dict(packed=True).items()}
        return parts, meant.float()

    return write


@pytest.mark.parametrize("kind", ["nf4", "fp4", "nf4_nested", "int8"])
def test_bitsandbytes(kind: str, folder: Path, tmp_path: Path) -> None:
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": kind != "int8"}
    folders = rewritten(folder, tmp_path, settings, write_bitsandbytes(kind))
    check(folders, {"int8"} if kind == "int8" else set())


def test_mxfp4_experts(tmp_path: Path) -> None:
    config = COMMON | {
        "architectures": ["GptOssForCausalLM"],
        "model_type": "gpt_oss",
        "intermediate_size": 96,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "tie_word_embeddings": True,
        "sliding_window": 32,
        "rope_parameters": {"rope_type": "default", "rope_theta": 600.0},
    }
    folder = harness.write_checkpoint(tmp_path / "plain", config)
    table = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])
    stored: Tensors = {}
    meant: Tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        stored[name] = meant[name] = weight
        if weight.dim() == 3:
            del stored[name]
            blocks = weight.transpose(1, 2).unflatten(-1, (-1, 32))  # [E, out, blocks, 32]
            powers = (blocks.abs().amax(-1) / 6.0).log2().ceil()
            codes = (blocks[..., None] / powers.exp2()[..., None, None] - table).abs().argmin(-1)
            stored[f"{name}_blocks"] = (codes[..., ::2] | codes[..., 1::2] << 4).to(torch.uint8)
            stored[f"{name}_scales"] = (powers + 127).to(torch.uint8)
            numbers = table[codes] * powers.exp2()[..., None]
            meant[name] = numbers.flatten(-2).transpose(1, 2).contiguous()
    for where, tensors in (("quantized", stored), ("meant", meant)):
        (tmp_path / where).mkdir()
        save_file(tensors, tmp_path / where / "model.safetensors", metadata={"format": "pt"})
    settings = {"quantization_config": {"quant_method": "mxfp4"}}
    (tmp_path / "quantized" / "config.json").write_text(json.dumps(config | settings))
    (tmp_path / "meant" / "config.json").write_text(json.dumps(config))
    ours = describe(str(tmp_path / "quantized"))
    assert ours.formats.of("layers.1.feed_forward.experts").name == "int8_g32"
    check((tmp_path / "quantized", tmp_path / "meant"), {"int8_g32"})


@pytest.mark.parametrize(
    ("settings", "write", "message"),
    [
        (
            {"quant_method": "strange"},
            write_awq,
            "method 'strange', which this version does not read",
        ),
        ({"bits": 4}, write_awq, "names no quant_method"),
        ({"quant_method": "awq", "bits": 3}, write_awq, "AWQ of 3 bits is not read"),
        ({"quant_method": "awq", "bits": 4, "version": "gemv"}, write_awq, "version 'gemv' of AWQ"),
        ({"quant_method": "awq", "bits": 4, "group_size": 7}, write_awq, r"must be .* \[37, "),
        (
            {"quant_method": "gptq", "bits": "4"},
            write_awq,
            "bits is '4'; it must be a whole number",
        ),
        (
            {"quant_method": "compressed-tensors"},
            write_fp8("tensor"),
            "no group .* names the layer",
        ),
        (
            {"quant_method": "fp8", "weight_block_size": [128]},
            write_fp8("tensor"),
            "two whole numbers",
        ),
        ({"quant_method": "bitsandbytes"}, write_fp8("tensor"), "stored as F8_E4M3"),
    ],
)
def test_settings_that_are_wrong_are_named(
    settings: dict[str, Any], write: Any, message: str, folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelLoadError, match=message):
        describe(str(rewritten(folder, tmp_path, settings, write)[0]))


def test_scales_that_are_no_numbers_are_refused(folder: Path, tmp_path: Path) -> None:
    def write(name: str, weight: torch.Tensor) -> Written:
        parts, meant = write_awq(name, weight)
        if "layers.1.mlp.down" in name:
            parts["scales"] = parts["scales"].index_fill(0, torch.tensor(0), torch.nan)
        return parts, meant

    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
    ours = describe(str(rewritten(folder, tmp_path, settings, write)[0]))
    with pytest.raises(ModelLoadError, match=r"layers\.1\.mlp\.down_proj.* not finite numbers"):
        logits(ours)


def test_a_checkpoint_on_a_device_without_products_of_fewer_bits_becomes_floats(
    folder: Path, tmp_path: Path
) -> None:
    settings = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"}
    quantized, meant = rewritten(folder, tmp_path, settings, write_awq)
    ours = describe(str(quantized))
    scheme = scheme_for(None, ours.quantization, ours.formats, "cuda")
    decoder = build_decoder(
        ours,
        Table(),
        dtype=torch.float32,
        device=torch.device("cpu"),
        max_model_len=64,
        scheme=scheme,
    )
    found = harness.our_logits(decoder, IDS, max_len=64)
    assert torch.equal(found, logits(describe(str(meant))))
