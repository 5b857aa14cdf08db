"""What `describe` finds in a folder, and what it says when something is wrong there."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire.models.registry import describe
from quire.models.spec import DynamicScaling, LinearScaling, Llama3Scaling, YarnScaling
from quire.protocol.errors import ModelLoadError
from tests.models.families import CASES, LLAMA3, YARN, gpt2, llama, longrope, opt, phi3

LINEAR = {"type": "linear", "factor": 3.0}


def folder_with(path: Path, config: Any, **files: Any) -> str:
    path.mkdir(parents=True, exist_ok=True)
    text = config if isinstance(config, str) else json.dumps(config)
    (path / "config.json").write_text(text)
    for name, value in files.items():
        (path / f"{name}.json").write_text(json.dumps(value))
    return str(path)


def dry(model: str, **kwargs: Any) -> Any:
    return describe(model, load_format="dummy", **kwargs)


def test_a_described_checkpoint(tmp_path: Path) -> None:
    generation = {"eos_token_id": [7, 8, 7], "temperature": 0.6, "top_k": 20, "do_sample": True}
    model = folder_with(tmp_path, llama(), generation_config=generation)
    found = dry(model)
    assert found.architecture == "LlamaForCausalLM"
    assert found.path == model
    assert found.eos_token_ids == (7, 8)
    assert found.bos_token_id == 1
    assert found.generation_defaults == {"temperature": 0.6, "top_k": 20}
    assert found.max_model_len == 512
    assert found.checkpoint_dtype == "float32"
    assert found.hf_config["vocab_size"] == 97


def test_eos_comes_from_config_without_a_generation_config(tmp_path: Path) -> None:
    assert dry(folder_with(tmp_path, llama())).eos_token_ids == (2,)
    assert dry(folder_with(tmp_path, llama(eos_token_id=None))).eos_token_ids == ()


def test_the_text_of_a_model_that_sees_says_what_its_file_does_not(tmp_path: Path) -> None:
    """Where outputs end, and whether the output matrix is the embedding."""
    whole = CASES["qwen3_5_text"].config  # its text does not say whether the matrices are one
    text = whole["text_config"] | {"eos_token_id": 7}
    assert dry(folder_with(tmp_path, whole | {"text_config": text})).eos_token_ids == (2,)
    del (outer := dict(whole))["eos_token_id"]
    found = dry(folder_with(tmp_path, outer | {"text_config": text, "tie_word_embeddings": True}))
    assert (found.eos_token_ids, found.spec.tie_head) == ((7,), True)
    with pytest.raises(ModelLoadError, match="text_config is None: it must describe"):
        dry(folder_with(tmp_path, outer | {"text_config": None}))


def test_generation_config_from_elsewhere_none_or_overridden(tmp_path: Path) -> None:
    model = folder_with(tmp_path / "a", llama(), generation_config={"temperature": 0.6})
    other = folder_with(tmp_path / "b", llama(), generation_config={"top_p": 0.5})
    assert dry(model, generation_config="vllm").generation_defaults == {}
    assert dry(model, generation_config=other).generation_defaults == {"top_p": 0.5}
    merged = dry(model, override_generation_config={"temperature": 0.1, "max_new_tokens": 9})
    assert merged.generation_defaults == {"temperature": 0.1, "max_new_tokens": 9}


@pytest.mark.parametrize(
    ("values", "length"),
    [
        ({}, 512),
        ({"rope_scaling": LLAMA3}, 512),
        ({"rope_scaling": LINEAR}, 1536),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, 1024),
        ({"rope_scaling": YARN}, 512),
    ],
)
def test_max_model_len_includes_position_scaling(
    values: dict[str, Any], length: int, tmp_path: Path
) -> None:
    assert dry(folder_with(tmp_path, llama(**values))).max_model_len == length


@pytest.mark.parametrize(
    ("section", "kind"),
    [
        (LLAMA3, Llama3Scaling),
        (YARN, YarnScaling),
        (LINEAR, LinearScaling),
        ({"type": "dynamic", "factor": 2.0}, DynamicScaling),
    ],
)
def test_all_spellings_of_rope_mean_the_same(
    section: dict[str, Any], kind: type, tmp_path: Path
) -> None:
    values = {key: value for key, value in section.items() if key not in ("type", "rope_type")}
    name = section.get("rope_type", section.get("type"))
    forms = [
        {"rope_theta": 700.0, "rope_scaling": values | {"type": name}},
        {"rope_theta": 700.0, "rope_scaling": values | {"rope_type": name}},
        {"rope_theta": 700.0, "rope_scaling": values | {"rope_type": name, "type": name}},
        {"rope_parameters": values | {"rope_type": name, "rope_theta": 700.0}},
        {"rope_parameters": {"full_attention": values | {"rope_type": name, "rope_theta": 700.0}}},
        {"rope_theta": 700.0, "rope_scaling": {}, "rope_parameters": values | {"rope_type": name}},
    ]
    specs = [
        dry(folder_with(tmp_path / str(index), llama(**form))).spec
        for index, form in enumerate(forms)
    ]
    assert all(spec == specs[0] for spec in specs)
    rope = specs[0].layers[0].mixer.rope
    assert isinstance(rope.scaling, kind)
    assert rope.theta == 700.0


def test_rope_of_each_kind_of_layer(tmp_path: Path) -> None:
    config = llama() | {
        "architectures": ["Gemma2ForCausalLM"],
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 900.0},
        },
    }
    layers = dry(folder_with(tmp_path, config)).spec.layers
    ropes = [layer.mixer.rope for layer in layers]
    assert [rope.theta for rope in ropes] == [100.0, 900.0]
    assert [rope.scaling for rope in ropes] == [None, LinearScaling(factor=2.0)]


def test_overrides_merge_and_null_takes_a_key_out(tmp_path: Path) -> None:
    model = folder_with(tmp_path, llama(rope_scaling=LLAMA3, new_trick=True))
    with pytest.raises(ModelLoadError, match=r"does not know new_trick.*--hf-overrides"):
        dry(model)
    found = dry(model, hf_overrides={"new_trick": None, "rope_scaling": {"factor": 9.0}})
    assert found.spec.layers[0].mixer.rope.scaling.factor == 9.0
    assert found.spec.layers[0].mixer.rope.scaling.low_freq_factor == 1.5


def test_context_extension_by_override(tmp_path: Path) -> None:
    """The documented way to a longer context: rope parameters and a length, which config.json never has."""
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
    overrides = {"rope_parameters": yarn | {"rope_theta": 1e6}, "max_model_len": 2048}
    found = dry(folder_with(tmp_path, llama(rope_scaling=None)), hf_overrides=overrides)
    assert found.max_model_len == 2048
    assert found.spec.layers[0].mixer.rope.theta == 1e6


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{broken", "is not valid JSON"),
        ("[1]", "must hold a JSON object"),
        ('{"a": ' * 5000, "is not valid JSON"),
        ({"model_type": "llama"}, "names no architecture.*LlamaForCausalLM"),
        (llama(architectures=["NobodyForCausalLM"]), "'NobodyForCausalLM' is not supported; known"),
        (
            llama(quantization_config={"quant_method": "x"}),
            "method 'x', which this version does not",
        ),
        (llama(alibi=True), "does not know alibi"),
        (llama(rope_scaling=LINEAR | {"beta_fast": 32}), "does not know rope_scaling.beta_fast"),
        (
            llama(rope_scaling={"type": "ntk", "factor": 2.0}),
            "rope_scaling.type is 'ntk'; it must be",
        ),
        (llama(rope_scaling={"type": "linear"}), "rope_scaling.factor is missing"),
        (llama(rope_scaling=[1]), "rope_scaling is .1.; it must be a JSON object"),
        (llama(hidden_size="64"), "hidden_size is '64'; it must be a whole number"),
        (llama(num_hidden_layers=0), "num_hidden_layers is 0"),
        (llama(num_key_value_heads=3), "num_key_value_heads is 3: num_attention_heads 4 must be"),
        (llama(rms_norm_eps=float("inf")), "rms_norm_eps is inf; it must be a finite number"),
        (llama(num_hidden_layers=10**9), "num_hidden_layers is 1000000000; .* to 10000"),
        (llama(vocab_size=2.5), "vocab_size is 2.5; it must be a whole number"),
        (llama(rope_scaling=LINEAR | {"factor": 0}), "rope_scaling.factor is 0.0; .* above zero"),
        (llama(rope_scaling=LLAMA3 | {"high_freq_factor": 1}), "must not be below low_freq_factor"),
        (llama(tie_word_embeddings=1), "tie_word_embeddings is 1; it must be true or false"),
        (llama(hidden_act="relu6"), "hidden_act is 'relu6'; it must be one of gelu"),
        (phi3(rope_scaling=longrope(7)), "short_factor is .* it must have 8 numbers"),
        (phi3(rope_scaling=longrope(8, long_factor=[0.0] * 8)), "a list of numbers above zero"),
        (phi3(mlp_bias=True), "mlp_bias is True: this architecture has no biases"),
        (phi3(partial_rotary_factor=1.5), "turn 24 of the 16 numbers"),
        (gpt2(n_head=5), "n_embd is 64: it must be a multiple of n_head 5"),
        (opt(do_layer_norm_before=False), "do_layer_norm_before is False: norms after the sums"),
        (opt(word_embed_proj_dim=32), "word_embed_proj_dim is 32: only hidden_size 64"),
        (CASES["gemma3"].config | {"attn_logit_softcapping": 3.0}, "does not cap scores"),
        (llama(head_dim=7), "must be an even number"),
        (llama(torch_dtype="float8_e4m3fn"), "dtype 'float8_e4m3fn' is not supported"),
        (llama(eos_token_id="x"), "'x' is no token id"),
        ({**llama(), "vocab_size": None}, "vocab_size is None"),
    ],
)
def test_what_is_wrong_with_config_json_is_said(config: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=message):
        dry(folder_with(tmp_path, config))


def test_a_missing_folder_or_config_is_said(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="there is no folder"):
        describe(str(tmp_path / "none"))
    with pytest.raises(ModelLoadError, match=r"has no config.json"):
        describe(str(tmp_path))


def write_header(path: Path, header: Any, data: bytes = b"") -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


WHOLE = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"", b"", "damaged header"),
        (b"[1]", b"", "damaged header"),
        ({"a": {"dtype": "F32"}}, b"", "damaged header"),
        (WHOLE, b"1234", "cut short"),
        ({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}, b"12", "stored as F8"),
        ({"a": {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}}, b"12", "from 0 up"),
        (WHOLE, b"12345678", "lacks tensors 'model.embed_tokens.weight'"),
    ],
)
def test_damaged_weights_are_said(header: Any, data: bytes, message: str, tmp_path: Path) -> None:
    model = folder_with(tmp_path, llama())
    write_header(tmp_path / "model.safetensors", header, data)
    with pytest.raises(ModelLoadError, match=message):
        describe(model)


def test_truncated_missing_and_pickled_weights_are_said(tmp_path: Path) -> None:
    model = folder_with(tmp_path, llama())
    with pytest.raises(ModelLoadError, match=r"holds no safetensors files$"):
        describe(model)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelLoadError, match=r"pytorch_model.bin is a pickle"):
        describe(model)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 12)
    with pytest.raises(ModelLoadError, match="not a whole safetensors file"):
        describe(model)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"a": "gone.safetensors"}}, "lacks the shard gone.safetensors"),
        ({"weight_map": {"a": "../x.safetensors"}}, "not a file of this folder"),
        ({"weight_map": 3}, "cannot be read as an index"),
    ],
)
def test_a_bad_index_is_said(index: Any, message: str, tmp_path: Path) -> None:
    model = folder_with(tmp_path, llama(), **{"model.safetensors.index": index})
    with pytest.raises(ModelLoadError, match=message):
        describe(model)


def test_a_tensor_in_two_shards_is_said(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}
    model = folder_with(tmp_path, llama(), **{"model.safetensors.index": index})
    for number in (1, 2):
        write_header(tmp_path / f"{number}.safetensors", WHOLE, b"12345678")
    with pytest.raises(ModelLoadError, match=r"'a' is in 1.safetensors and in 2.safetensors"):
        describe(model)


def test_dtype_falls_back_to_what_is_stored(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    source = checkpoint("llama", dtype="bfloat16")
    config = json.loads((source / "config.json").read_text())
    config.pop("dtype", None)
    config.pop("torch_dtype", None)
    model = folder_with(tmp_path, config)
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    assert describe(model).checkpoint_dtype == "bfloat16"


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_shared_checkpoints_are_described(family: str, checkpoint: Callable[..., Path]) -> None:
    found = describe(str(checkpoint(family)))
    assert len(found.spec.layers) == 2
    assert found.eos_token_ids == (1,)
