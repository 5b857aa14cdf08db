"""GGUF files written by the `gguf` package: every family's numbers, formats, and what refuses to load."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import quire
from quire.models.build import build_decoder
from quire.models.registry import ModelDescription, describe
from quire.ops.registry import Table
from quire.protocol.errors import ModelLoadError
from quire.quant.formats import FormatTable
from quire.quant.schemes.checkpoint import scheme_for
from tests.models import harness
from tests.models.case import COMMON
from tests.models.gguf_writer import ARCHITECTURES, Kind, write_gguf

WRITTEN_THERE = tuple(ARCHITECTURES.values())
IDS = torch.randint(0, 96, (40,), generator=torch.Generator().manual_seed(5)).tolist()
SMALL = COMMON | {"vocab_size": 96, "intermediate_size": 96, "rope_theta": 700.0}
SMALL |= {"rms_norm_eps": 1e-5, "max_position_embeddings": 256}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
GEMMA = {"head_dim": 32, "tie_word_embeddings": True}
LONG = {
    "rope_type": "longrope",
    "short_factor": [1.5] * 8,
    "long_factor": [1.0 + i for i in range(8)],
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 6.0,
    "low_freq_factor": 1.5,
    "high_freq_factor": 5.0,
    "original_max_position_embeddings": 96,
}

WIDE = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64}

CONFIGS: dict[str, dict[str, Any]] = {
    "qwen3_wide": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", **WIDE},
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama"},
    "llama_long": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "head_dim": 32,
        "rope_scaling": LLAMA3,
        "tie_word_embeddings": True,
    },
    "llama_yarn": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "mixtral": {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "sliding_window": None,
    },
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
    "qwen2_moe": {
        "architectures": ["Qwen2MoeForCausalLM"],
        "model_type": "qwen2_moe",
        **MOE,
        "shared_expert_intermediate_size": 64,
    },
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32},
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "head_dim": 32,
        **MOE,
        "norm_topk_prob": True,
    },
    "qwen3_moe_wide": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        **MOE,
        **WIDE,
        "moe_intermediate_size": 256,
        "norm_topk_prob": True,
    },
    "gemma": {"architectures": ["GemmaForCausalLM"], "model_type": "gemma", **GEMMA},
    "gemma2": {
        "architectures": ["Gemma2ForCausalLM"],
        "model_type": "gemma2",
        **GEMMA,
        "attn_logit_softcapping": 30.0,
        "final_logit_softcapping": 20.0,
        "sliding_window": 16,
        "query_pre_attn_scalar": 32,
    },
    "gemma3": {
        "architectures": ["Gemma3ForCausalLM"],
        "model_type": "gemma3_text",
        **GEMMA,
        "sliding_window": 16,
        "query_pre_attn_scalar": 32,
        "num_hidden_layers": 7,
    },
    "phi3": {
        "architectures": ["Phi3ForCausalLM"],
        "model_type": "phi3",
        "rope_scaling": LONG,
        "original_max_position_embeddings": 64,
        "sliding_window": 32,
    },
    "olmo2": {"architectures": ["Olmo2ForCausalLM"], "model_type": "olmo2"},
    "granite": {
        "architectures": ["GraniteForCausalLM"],
        "model_type": "granite",
        "logits_scaling": 3.0,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.7,
        "attention_multiplier": 0.2,
    },
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("QUIRE_CACHE_DIR", str(tmp_path / "cache"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`folders(name)`: the checkpoint of a config above, written once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = harness.write_checkpoint(folder, SMALL | CONFIGS[name])
        return made[name]

    return get


def decoder_of(description: ModelDescription, dtype: torch.dtype = torch.float32) -> Any:
    return build_decoder(
        description,
        Table(),
        dtype=dtype,
        device=torch.device("cpu"),
        max_model_len=128,
        scheme=scheme_for(None, description.quantization, description.formats, "cpu"),
    )


def logits(description: ModelDescription, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return harness.our_logits(decoder_of(description, dtype), IDS, max_len=128)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_floats_give_the_bits_of_the_same_safetensors(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders(name)
    path = write_gguf(folder, tmp_path / "m.gguf", lambda _: Kind.F32)
    ours = describe(str(path))
    assert ours.quantization is None
    expected = logits(describe(str(folder)))
    if name == "llama_long":  # factors are float32 there, and made in double here
        torch.testing.assert_close(logits(ours), expected, rtol=1e-4, atol=1e-4)
    else:
        assert torch.equal(logits(ours), expected)


def dequantised(folder: Path, path: Path, to: Path) -> Path:
    """The folder with the numbers that the `gguf` package reads from the file; plain Llama names only."""
    to.mkdir()
    (to / "config.json").write_text((folder / "config.json").read_text())
    config = json.loads((to / "config.json").read_text())
    reader = gguf.GGUFReader(str(path))
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.QWEN3, config["num_hidden_layers"])
    theirs = {one.name: gguf.quants.dequantize(one.data, one.tensor_type) for one in reader.tensors}
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        stem, _, kind = name.rpartition(".")
        found = theirs[f"{names.get_name(stem)}.{kind}"]
        tensors[name] = torch.from_numpy(found.copy()).view(tensor.shape).to(torch.float32)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    return to


MIXED = {"attn_v": Kind.Q8_0, "ffn_down": Kind.Q5_1, "token_embd": Kind.Q8_0, "output": Kind.Q5_0}


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        (Kind.Q8_0, "int8_g32_half"),
        (Kind.Q4_0, "int4_g32_half"),
        (Kind.Q5_0, "int8_g32_half"),
        (Kind.MXFP4, "int8_g32"),
        (Kind.Q4_1, "int8_g32"),
        (Kind.BF16, None),
    ],
)
def test_quantized_files_compute_what_the_package_reads(
    kind: Any, kept: str | None, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders("qwen3")
    path = write_gguf(folder, tmp_path / "m.gguf", lambda _: kind)
    ours = describe(str(path))
    formats = {format.name for format in ours.formats.by_name.values()}
    assert formats == ({kept} if kept else set())
    expected = harness.their_logits(dequantised(folder, path, tmp_path / "plain"), IDS)
    error = (logits(ours) - expected).std() / expected.std()
    # Q4_1 is rounded to 8 bits; of the others only rows are, to 16 bits.
    assert error < (3e-2 if kind == Kind.Q4_1 else 1e-3)


@pytest.mark.parametrize(
    ("kind", "kept"),
    [
        *((getattr(Kind, f"Q{bits}_K"), f"q{bits}_k") for bits in range(2, 7)),
        *((kind, "int8_k") for kind in (Kind.IQ4_XS, Kind.IQ3_S, Kind.IQ2_XS, Kind.IQ1_S)),
        (Kind.TQ2_0, "q3_k"),
    ],
)
def test_super_blocks_compute_what_the_package_reads(
    kind: Any, kept: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders("qwen3_wide")
    path = write_gguf(folder, tmp_path / "m.gguf", lambda _: kind)
    ours = describe(str(path))
    assert {format.name for format in ours.formats.by_name.values()} == {kept}
    expected = harness.their_logits(dequantised(folder, path, tmp_path / "plain"), IDS)
    assert (logits(ours) - expected).std() / expected.std() < 1e-3


def test_super_blocks_of_several_kinds_are_stacked(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, wide = folders("qwen3_wide"), {"attn_v": Kind.Q6_K, "ffn_up": Kind.Q5_K}
    path = write_gguf(
        folder, tmp_path / "m.gguf", lambda name: wide.get(name.split(".")[-2], Kind.Q4_K)
    )
    ours = describe(str(path))
    formats = {name: format.name for name, format in ours.formats.by_name.items()}
    assert formats["layers.0.mixer.qkv.weight"] == "q4_k:384+q6_k:128"
    assert formats["layers.0.feed_forward.gate_up.weight"] == "q4_k:256+q5_k:256"
    expected = harness.their_logits(dequantised(folder, path, tmp_path / "plain"), IDS)
    assert (logits(ours) - expected).std() / expected.std() < 1e-3


def test_experts_may_be_of_two_kinds(folders: Callable[[str], Path], tmp_path: Path) -> None:
    kinds = {"ffn_down_exps": Kind.Q6_K, "attn_output": Kind.Q2_K}
    path = write_gguf(
        folders("qwen3_moe_wide"),
        tmp_path / "m.gguf",
        lambda name: kinds.get(name.split(".")[-2], Kind.Q4_K),
    )
    ours = describe(str(path))
    found = ours.formats.of("layers.1.feed_forward.experts").name
    assert [run.split(":")[0] for run in found.split("+")] == ["q4_k", "q6_k"]
    floats = replace(ours, formats=FormatTable())
    expected = logits(floats)
    assert (logits(ours) - expected).std() / expected.std() < 1e-3


def test_mixed_types_are_kept_in_a_format_that_holds_all(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders("qwen3")
    path = write_gguf(
        folder, tmp_path / "m.gguf", lambda name: MIXED.get(name.split(".")[-2], Kind.Q4_0)
    )
    ours = describe(str(path))
    formats = {name: format.name for name, format in ours.formats.by_name.items()}
    assert (
        formats["layers.0.mixer.qkv.weight"] == "int8_g32_half"
    )  # q and k of 4 bits beside v of 8
    assert formats["layers.0.mixer.out.weight"] == "int4_g32_half"
    assert formats["head.weight"] == "int8_g32_half"
    expected = harness.their_logits(dequantised(folder, path, tmp_path / "plain"), IDS)
    torch.testing.assert_close(logits(ours), expected, rtol=0.0, atol=0.1 * expected.std().item())


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3_moe", "qwen2_moe", "phi3"])
def test_quantized_families_are_close_to_their_floats(
    name: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = folders(name)
    path = write_gguf(folder, tmp_path / "m.gguf", lambda _: Kind.Q8_0)
    ours = describe(str(path))
    assert ours.formats.by_name
    expected = logits(describe(str(folder)))
    error = (logits(ours) - expected).std() / expected.std()
    assert error < 0.05
    half = logits(ours, torch.bfloat16)
    assert (half - expected).std() / expected.std() < 0.1


def test_scales_of_whole_tensors(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """A factor beside a tensor of NVFP4; those of inputs are left."""
    factors = {"blk.0.ffn_down": 1.75, "blk.1.attn_k": 0.375}
    names = {"layers.0.mlp.down_proj": 1.75, "layers.1.self_attn.k_proj": 0.375}

    def more(writer: Any) -> None:
        writer.add_tokenizer_model("none")
        for stem, value in factors.items():
            for end in ("scale", "input_scale"):
                writer.add_tensor(f"{stem}.{end}", np.array([value], dtype=np.float32))

    folder = folders("qwen3_wide")
    path = write_gguf(folder, tmp_path / "m.gguf", lambda _: Kind.NVFP4, more)
    meant = dequantised(folder, path, tmp_path / "plain")
    tensors = load_file(meant / "model.safetensors")
    for stem, value in names.items():
        tensors[f"model.{stem}.weight"] = tensors[f"model.{stem}.weight"] * value
    save_file(tensors, meant / "model.safetensors", metadata={"format": "pt"})
    expected = harness.their_logits(meant, IDS)
    assert (logits(describe(str(path))) - expected).std() / expected.std() < 1e-5
    path = write_gguf(folder, tmp_path / "q.gguf", lambda _: Kind.Q8_0, more)
    with pytest.raises(ModelLoadError, match="scale beside a tensor of type Q8_0 is not read"):
        describe(str(path))


def test_a_folder_with_one_file_is_that_model(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    write_gguf(folders("qwen3"), tmp_path / "models" / "a.gguf", lambda _: Kind.Q8_0)
    assert describe(str(tmp_path / "models")).architecture == "Qwen3ForCausalLM"
    write_gguf(folders("qwen3"), tmp_path / "models" / "b.gguf", lambda _: Kind.Q8_0)
    with pytest.raises(ModelLoadError, match=r"several models \(a.gguf, b.gguf\)"):
        describe(str(tmp_path / "models"))


def test_settings_of_quantization_that_differ_are_refused(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    path = write_gguf(folders("qwen3"), tmp_path / "m.gguf", lambda _: Kind.Q8_0)
    ours = describe(str(path))
    assert scheme_for("gguf", ours.quantization, ours.formats, "cpu").layers == ours.formats
    with pytest.raises(ValueError, match="quantized as 'gguf' already"):
        scheme_for("int8", ours.quantization, ours.formats, "cpu")


def test_an_unknown_architecture_and_setting_are_named(
    folders: Callable[[str], Path], tmp_path: Path
) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "x.gguf"), "rwkv7")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelLoadError, match=r"architecture 'rwkv7' is not read.*known are llama"):
        describe(str(tmp_path / "x.gguf"))

    def more(writer: Any) -> None:
        writer.add_float32("qwen3.attention.strange_factor", 2.0)

    path = write_gguf(folders("qwen3"), tmp_path / "m.gguf", lambda _: Kind.Q8_0, more)
    with pytest.raises(ModelLoadError, match=r"qwen3\.attention\.strange_factor is not known"):
        describe(str(path))


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0])
def test_the_demo_model_answers_from_one_file(kind: Any, tmp_path: Path) -> None:
    demo = Path(quire.__file__).parent / "models" / "demo"
    settings = json.loads((demo / "tokenizer_config.json").read_text())

    def more(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        tokens = json.loads((demo / "tokenizer.json").read_text())["added_tokens"]
        names = {one["id"]: one["content"] for one in tokens}
        writer.add_token_list([names.get(number, f"<{number}>") for number in range(3072)])
        writer.add_token_types([3 if number < 3 else 1 for number in range(3072)])
        writer.add_eos_token_id(2)
        writer.add_chat_template(settings["chat_template"])
        writer.add_string("tokenizer.huggingface.json", (demo / "tokenizer.json").read_text())

    path = write_gguf(demo, tmp_path / "demo.gguf", lambda _: kind, more)
    llm = quire.LLM(str(path), max_model_len=256, use_tqdm_on_load=False)
    params = quire.SamplingParams(temperature=0.0, max_tokens=20)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    outputs = llm.chat(asked, params, use_tqdm=False)
    assert outputs[0].outputs[0].text == "The capital of France is Paris."
    assert outputs[0].outputs[0].finish_reason == "stop"
