"""Checkpoints in Mistral's own form, as vLLM's shards and as pickles, and tokenizers in other files.

The same numbers in Hugging Face's form must give the same bits.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quire.config.schema import LoadConfig, ModelConfig, Settings
from quire.frontend.tokenizer import Tokenizer
from quire.models.build import build_decoder
from quire.models.loading.hub import with_local_folders
from quire.models.loading.mistral import config_of
from quire.models.loading.shards import save_sharded_state
from quire.models.parameters import weight_counts
from quire.models.registry import describe
from quire.models.spec import Mla, Temperature
from quire.ops.registry import Table
from quire.protocol.errors import ModelLoadError, SettingsError
from tests.models import harness
from tests.models.case import COMMON
from tests.models.families_moe import LATENT, ROUTED
from tests.models.families_more import GROWING

IDS = torch.randint(0, 96, (20,), generator=torch.Generator().manual_seed(5)).tolist()
MISTRAL = COMMON | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "head_dim": 16,
    "vocab_size": 96,
    "sliding_window": None,
    "rope_theta": 1e4,
    "max_position_embeddings": 256,
}
MIXTRAL = MISTRAL | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
LARGE = MISTRAL | {
    "architectures": ["MistralLarge3ForCausalLM"],
    "model_type": "mistral4",
    **LATENT,
    **ROUTED,
    "head_dim": 40,
    "rms_norm_eps": 1e-6,
    "rope_parameters": GROWING
    | {"rope_type": "yarn", "rope_theta": 1e4, "truncate": True, "mscale_all_dim": 1.0}
    | {"original_max_position_embeddings": 8, "partial_rotary_factor": 0.4},
}
NAMES = {
    "model.embed_tokens": "tok_embeddings",
    "model.norm": "norm",
    "lm_head": "output",
    "self_attn.q_proj": "attention.wq",
    "self_attn.k_proj": "attention.wk",
    "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "feed_forward.w1",
    "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3",
    "block_sparse_moe": "feed_forward",
    "self_attn.q_a_proj": "attention.wq_a",
    "self_attn.q_a_layernorm": "attention.q_a_norm",
    "self_attn.q_b_proj": "attention.wq_b",
    "self_attn.kv_a_proj_with_mqa": "attention.wkv_a_with_mqa",
    "self_attn.kv_a_layernorm": "attention.kv_a_norm",
    "self_attn.kv_b_proj": "attention.wkv_b",
    "mlp.gate.": "gate.",
    "mlp.experts": "experts",
    "mlp.shared_experts": "shared_experts",
    "gate_proj": "w1",
    "down_proj": "w2",
    "up_proj": "w3",
}
EXPERTS = {
    "num_experts": "n_routed_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
    "expert_hidden_dim": "moe_intermediate_size",
    "first_k_dense_replace": "first_k_dense_replace",
    "routed_scale": "routed_scaling_factor",
}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUIRE_CACHE_DIR", str(tmp_path / "cache"))


def local(folder: Path, load_format: str = "auto", **model: Any) -> Path:
    settings = Settings(
        model=ModelConfig(model=str(folder), **model), load=LoadConfig(load_format=load_format)
    )
    return Path(with_local_folders(settings).model.model)


def logits(folder: Path) -> torch.Tensor:
    more: Any = {"dtype": torch.float32, "device": torch.device("cpu"), "max_model_len": 64}
    decoder = build_decoder(describe(str(folder)), Table(), **more)
    return harness.our_logits(decoder, IDS, max_len=64)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return {
        name: tensor
        for path in sorted(folder.glob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same with three tensors for each expert, where a layer's experts are stacked in two."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            found[name] = tensor
            continue
        at, _, kind = name.rpartition(".")
        for number, expert in enumerate(tensor):
            parts = expert.chunk(2) if kind == "gate_up_proj" else [expert]
            kinds = ("gate_proj", "up_proj") if kind == "gate_up_proj" else ("down_proj",)
            for part, one in zip(kinds, parts, strict=True):
                found[f"{at}.{number}.{part}.weight"] = one.contiguous()
    return found


def as_mistral(folder: Path, to: Path, config: dict[str, Any]) -> Path:
    """The folder in Mistral's form; heads of q and k go from halves to neighbours."""
    to.mkdir(parents=True)
    made: dict[str, torch.Tensor] = {}
    for name, tensor in apart(tensors_of(folder)).items():
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        for part, key in heads.items():
            if part in name and "kv_lora_rank" not in config:
                halves = tensor.view(config[key], 2, -1, tensor.shape[1])
                tensor = halves.transpose(1, 2).reshape(tensor.shape).contiguous()
        for theirs, mine in NAMES.items():
            name = name.replace(theirs, mine)
        made[name.removeprefix("model.")] = tensor
    save_file(made, to / "consolidated.safetensors")
    params = {
        "dim": config["hidden_size"],
        "n_layers": config["num_hidden_layers"],
        "head_dim": config["head_dim"],
        "hidden_dim": config["intermediate_size"],
        "n_heads": config["num_attention_heads"],
        "n_kv_heads": config["num_key_value_heads"],
        "norm_eps": config.get("rms_norm_eps", 1e-6),
        "vocab_size": config["vocab_size"],
        "rope_theta": config["rope_theta"],
        "max_seq_len": 256,
        "model_type": "transformer",
        "tied_embeddings": config.get("tie_word_embeddings", False),
    }
    if "num_local_experts" in config:
        params["moe"] = {"num_experts": 4, "num_experts_per_tok": 2}
    if "kv_lora_rank" in config:
        made["vision_encoder.some.weight"] = torch.zeros(3)
        save_file(made, to / "consolidated.safetensors")
        rope = config["rope_parameters"]
        length = {"original_max_position_embeddings": rope["original_max_position_embeddings"]}
        params |= {key: config[key] for key in LATENT if key != "num_key_value_heads"}
        params["moe"] = {mine: config[theirs] for mine, theirs in EXPERTS.items()}
        params["llama_4_scaling"] = length | {"beta": rope["llama_4_scaling_beta"]}
        yarn = {"beta": rope["beta_fast"], "alpha": rope["beta_slow"], "factor": rope["factor"]}
        params |= {"yarn": length | yarn | {"apply_scale": False}, "vision_encoder": {"dim": 3}}
    (to / "params.json").write_text(json.dumps(params))
    return to


@pytest.mark.parametrize("config", [MISTRAL, MIXTRAL, LARGE], ids=lambda one: one["model_type"])
def test_mistrals_own_form_gives_the_same_bits(config: dict[str, Any], tmp_path: Path) -> None:
    theirs = harness.write_checkpoint(tmp_path / "hf", config)
    mine = as_mistral(theirs, tmp_path / "own", config)
    want = logits(theirs)
    asked = {"config_format": "mistral"}
    assert torch.equal(logits(local(mine, "mistral", **asked)), want)
    assert torch.equal(logits(local(mine)), want)  # found by itself: there is no config.json
    shutil.copy(theirs / "config.json", mine / "config.json")
    assert torch.equal(logits(local(mine, "mistral")), want)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"yarn": {"factor": 4}}, "params.json: yarn must be an object with alpha, apply_scale"),
        ({"quantization": {"qformat_weight": "int8"}}, "fp8_e4m3 is read"),
        ({"quantization": {"qformat_weight": "fp8_e4m3", "qscheme_act": "ROW"}}, "qscheme_act is"),
        ({"kv_lora_rank": 512}, "latents of keys"),
        ({"moe": {"num_shared_experts": 1, "new": 3}}, "moe.new is not known"),
        ({"use_biases": True}, "'use_biases' is not known"),
        ({"dim": None}, "params.json"),
    ],
)
def test_a_key_that_changes_the_maths_is_named(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    theirs = harness.write_checkpoint(tmp_path / "hf", MISTRAL)
    mine = as_mistral(theirs, tmp_path / "own", MISTRAL)
    params = json.loads((mine / "params.json").read_text()) | change
    params = {key: value for key, value in params.items() if value is not None}
    (mine / "params.json").write_text(json.dumps(params))
    with pytest.raises(ModelLoadError, match=message):
        local(mine)


@pytest.mark.parametrize("config", [MISTRAL, LARGE], ids=lambda one: one["model_type"])
def test_mistrals_own_form_in_8_bits_gives_the_same_bits(
    config: dict[str, Any], tmp_path: Path
) -> None:
    """Numbers of 8 bits with a scale for a matrix, and one for its inputs that is not needed."""

    def quantized(folder: Path, weight: str, inputs: str, file: str) -> None:
        made: dict[str, torch.Tensor] = {}
        for name, tensor in apart(tensors_of(folder)).items():
            stem, _, kind = name.rpartition(".")
            made[name] = tensor
            if kind == "weight" and re.search(r"proj|\.w[qkvo123]", name) and tensor.dim() == 2:
                scale = tensor.abs().amax() / 448.0
                made[name] = (tensor / scale).to(torch.float8_e4m3fn)
                made |= {f"{stem}.{weight}": scale, f"{stem}.{inputs}": torch.tensor(0.5)}
        save_file(made, folder / file)

    theirs = harness.write_checkpoint(tmp_path / "hf", config)
    mine = as_mistral(theirs, tmp_path / "own", config)
    quantized(theirs, "weight_scale", "input_scale", "model.safetensors")
    settings = {"quant_method": "fp8", "activation_scheme": "static"}
    whole = json.loads((theirs / "config.json").read_text()) | {"quantization_config": settings}
    (theirs / "config.json").write_text(json.dumps(whole))
    quantized(mine, "qscale_weight", "qscale_act", "consolidated.safetensors")
    params = json.loads((mine / "params.json").read_text())
    params["quantization"] = {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}
    (mine / "params.json").write_text(json.dumps(params))
    assert describe(str(local(mine))).formats.by_name
    assert torch.equal(logits(local(mine)), logits(theirs))


def test_mistral_large_3_is_described(tmp_path: Path) -> None:
    """params.json as published; copies: TensorRT-LLM's and vLLM's tests of their readers."""
    length = {"original_max_position_embeddings": 8192}
    groups = {"num_expert_groups": 1, "num_expert_groups_per_tok": 1, "route_every_n": 1}
    sizes = {"num_experts": 128, "num_experts_per_tok": 4, "num_shared_experts": 1}
    params = {
        "dim": 7168,
        "n_layers": 61,
        "head_dim": 192,
        "hidden_dim": 16_384,
        "n_heads": 128,
        "n_kv_heads": 128,
        "norm_eps": 1e-6,
        "vocab_size": 131_072,
        "rope_theta": 1e4,
        "max_position_embeddings": 294_912,
        "max_seq_len": 262_144,
        "tied_embeddings": False,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "vision_encoder": {"image_size": 1540},
        "moe": groups
        | sizes
        | {"expert_hidden_dim": 4096, "first_k_dense_replace": 3, "routed_scale": 1.0},
        "llama_4_scaling": length | {"beta": 0.1},
        "yarn": length | {"alpha": 1, "apply_scale": False, "beta": 32, "factor": 36},
    }
    (tmp_path / "params.json").write_text(json.dumps(params))
    (tmp_path / "config.json").write_text(json.dumps(config_of(tmp_path, {})))
    found = describe(str(tmp_path), load_format="dummy")
    assert round(sum(weight_counts(found.spec).values()) / 1e9) == 673  # of the model card
    assert found.max_model_len == 294_912
    mixer = found.spec.layers[0].mixer
    assert isinstance(mixer, Mla) and mixer.temperature == Temperature(scale=0.1, interval=8192)
    growth = 0.1 * math.log(36) + 1
    assert mixer.query_scale == pytest.approx(192**-0.5 * growth**2)


@pytest.mark.parametrize("config", [MISTRAL, MIXTRAL], ids=lambda one: one["model_type"])
def test_shards_are_saved_and_read(config: dict[str, Any], tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path / "hf", config)
    saved = save_sharded_state(folder, config, tmp_path / "saved", max_size=40_000)
    assert [path.name for path in saved[:2]] == [
        "model-rank-0-part-0.safetensors",
        "model-rank-0-part-1.safetensors",
    ]
    names = set(tensors_of(tmp_path / "saved"))
    assert "model.layers.1.self_attn.qkv_proj.weight" in names
    assert not any("q_proj" in name for name in names)
    read = local(tmp_path / "saved", "sharded_state")
    assert torch.equal(logits(read), logits(folder))
    saved[1].unlink()
    with pytest.raises(ModelLoadError, match=r"lacks model-rank-0-part-1\.safetensors"):
        local(tmp_path / "saved", "sharded_state")


def test_shards_of_several_devices_are_refused(tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path / "hf", MISTRAL)
    saved = save_sharded_state(folder, MISTRAL, tmp_path / "saved")
    shutil.copy(saved[0], tmp_path / "saved" / "model-rank-1-part-0.safetensors")
    with pytest.raises(ModelLoadError, match="saved by several devices"):
        local(tmp_path / "saved", "sharded_state")
    with pytest.raises(ModelLoadError, match="as sharded_state needs it"):
        local(folder, "sharded_state")
    with pytest.raises(SettingsError, match="the pattern needs"):
        save_sharded_state(folder, MISTRAL, tmp_path / "more", pattern="all.safetensors")


def pickled(folder: Path, to: Path, content: Callable[[dict[str, torch.Tensor]], Any]) -> Path:
    to.mkdir()
    shutil.copy(folder / "config.json", to / "config.json")
    torch.save(content(tensors_of(folder)), to / "pytorch_model.bin")
    return to


def test_pickles_are_read_only_when_asked_for(tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path / "hf", MISTRAL)
    mine = pickled(folder, tmp_path / "pt", dict)
    with pytest.raises(ModelLoadError, match=r"pytorch_model\.bin is a pickle.*--load-format pt"):
        describe(str(local(mine)))
    assert torch.equal(logits(local(mine, "pt")), logits(folder))
    nested = pickled(folder, tmp_path / "nested", lambda one: {"state_dict": one})
    assert torch.equal(logits(local(nested, "pt")), logits(folder))


FAIRSEQ2 = MISTRAL | {"architectures": ["Fairseq2LlamaForCausalLM"], "model_type": "llama"}
COLUMNS = ("self_attn.output_proj.weight", "ffn.output_proj.weight")


def fairseq2(folder: Path, to: Path, content: list[dict[str, torch.Tensor]]) -> Path:
    """As fairseq2 writes what each device had, below the name of the model."""
    to.mkdir()
    shutil.copy(folder / "config.json", to / "config.json")
    for rank, tensors in enumerate(content):
        name = "model.pt" if len(content) == 1 else f"model.{rank}.pt"
        torch.save({"model_key": "llama", "llama": tensors}, to / name)
    return to


def test_fairseq2s_files_are_read_whole_or_joined(tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path / "hf", FAIRSEQ2)
    tensors = tensors_of(folder)
    whole = fairseq2(folder, tmp_path / "whole", [tensors])
    assert torch.equal(logits(local(whole, "pt")), logits(folder))
    halves: list[dict[str, torch.Tensor]] = [{}, {}]
    for name, tensor in tensors.items():
        axis = int(name.endswith(COLUMNS))
        parts = [tensor] * 2 if tensor.dim() == 1 else [it.clone() for it in tensor.chunk(2, axis)]
        for half, part in zip(halves, parts, strict=True):
            half[name] = part
    assert halves[0]["final_proj.weight"].shape[0] < len(tensors["final_proj.weight"])
    joined = fairseq2(folder, tmp_path / "joined", halves)
    assert torch.equal(logits(local(joined, "pt")), logits(folder))
    name = "decoder_frontend.embed.weight"
    repeated = [half | {name: tensors[name].clone()} for half in halves]
    assert torch.equal(
        logits(local(fairseq2(folder, tmp_path / "repeated", repeated), "pt")), logits(folder)
    )
    lacking = [halves[0], {key: it for key, it in halves[1].items() if key != name}]
    with pytest.raises(ModelLoadError, match="hold different tensors"):
        local(fairseq2(folder, tmp_path / "lacking", lacking), "pt")


class _Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_pickle_with_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path / "hf", MISTRAL)
    mark = tmp_path / "it ran"
    mine = pickled(folder, tmp_path / "pt", lambda one: {**one, "x": _Harmful(mark)})
    with pytest.raises(ModelLoadError, match="no pickle of weights alone"):
        local(mine, "pt")
    assert not mark.exists()
    other = pickled(folder, tmp_path / "other", lambda one: [1, 2])
    with pytest.raises(ModelLoadError, match="something else than tensors by name"):
        local(other, "pt")


@pytest.mark.parametrize("name", ["npcache", "tensorizer", "runai_streamer", "fastsafetensors"])
def test_forms_that_are_not_read_say_why(name: str, tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path / "hf", MISTRAL)
    with pytest.raises(SettingsError, match=f"load_format '{name}' cannot be used: "):
        local(folder, name)


PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = [
    b"th",
    b"the",
    b" the",
    b"in",
    b"ing",
    b" a",
    b"\xc3\xa9",
    b"an",
    b"and",
    b" and",
    b"ca",
    b"af",
]


def tekken(folder: Path) -> Path:
    """A vocabulary of bytes and some words, four special tokens before them."""
    vocabulary = [bytes([byte]) for byte in range(256)] + WORDS
    values = {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": 300,
            "default_vocab_size": 4 + 256 + len(WORDS),
            "default_num_special_tokens": 4,
            "version": "v3",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
            for rank, token in enumerate([*vocabulary, b"beyond the size"])
        ],
    }
    folder.mkdir(exist_ok=True)
    (folder / "tekken.json").write_text(json.dumps(values))
    return folder


def by_ranks(text: bytes) -> list[int]:
    """The ids of one word: the pair that makes the token of the lowest rank is merged, and so on."""
    ranks = {bytes([byte]): byte for byte in range(256)}
    ranks |= {word: 256 + place for place, word in enumerate(WORDS)}
    parts = [bytes([byte]) for byte in text]
    if text in ranks:
        return [4 + ranks[text]]
    while True:
        pairs = [
            (ranks.get(a + b, 1 << 30), i) for i, (a, b) in enumerate(itertools.pairwise(parts))
        ]
        if not pairs or min(pairs)[0] == 1 << 30:
            return [4 + ranks[part] for part in parts]
        at = min(pairs)[1]
        parts[at : at + 2] = [parts[at] + parts[at + 1]]


def test_a_tekken_tokenizer_is_read(tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path / "hf", MISTRAL)
    tekken(folder)
    tokenizer = Tokenizer.load(local(folder))
    words = ["the", " thing", " and", " caf\u00e9", " \u65e5\u672c", " 7", " !?"]
    want = [1] + [number for word in words for number in by_ranks(word.encode())]
    assert tokenizer.encode("".join(words)) == want
    assert tokenizer.decode(want, skip_special_tokens=True) == "".join(words)
    assert tokenizer.bos_token == "<s>" and tokenizer.eos_token_id == 2
    assert tokenizer.vocab_size == 4 + 256 + len(WORDS)
    with pytest.raises(ModelLoadError, match=r"--tokenizer-mode mistral needs tekken\.json"):
        (folder / "tekken.json").unlink()
        local(folder, tokenizer_mode="mistral")


def test_a_damaged_tekken_tokenizer_is_named(tmp_path: Path) -> None:
    folder = tekken(harness.write_checkpoint(tmp_path / "hf", MISTRAL))
    values = json.loads((folder / "tekken.json").read_text())
    values["vocab"][3]["token_bytes"] = "not base64!"
    (folder / "tekken.json").write_text(json.dumps(values))
    with pytest.raises(ModelLoadError, match=r"tekken\.json: its vocabulary is damaged"):
        local(folder, tokenizer_mode="mistral")


def test_a_slow_tokenizer_is_made_by_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    letters = [*"abcdefgh", "\u0120"]
    tokens = [*letters, "ab", "abc", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b\nab c\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    ours = Tokenizer.load(local(folder, tokenizer_mode="slow"))
    theirs = AutoTokenizer.from_pretrained(folder)
    for text in ("abc abd", "cab ab"):
        assert ours.encode(text) == theirs.encode(text)
