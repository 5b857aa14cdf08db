"""Checkpoints in Mistral's own form, as vLLM's shards and as pickles, and tokenizers in other files.

The same numbers in Hugging Face's form must give the same bits.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
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
from quire.models.loading.shards import save_sharded_state
from quire.models.registry import describe
from quire.ops.registry import Table
from quire.protocol.errors import ModelLoadError, SettingsError
from tests.models import harness
from tests.models.case import COMMON

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


def as_mistral(folder: Path, to: Path, config: dict[str, Any]) -> Path:
    """The folder in Mistral's form; heads of q and k go from halves to neighbours."""
    to.mkdir(parents=True)
    made: dict[str, torch.Tensor] = {}
    for name, tensor in tensors_of(folder).items():
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
        for part, key in heads.items():
            if part in name:
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
    (to / "params.json").write_text(json.dumps(params))
    return to


@pytest.mark.parametrize("config", [MISTRAL, MIXTRAL], ids=lambda one: one["model_type"])
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
        ({"yarn": {"factor": 4}}, "params.json: 'yarn' is not known"),
        ({"vision_encoder": {"dim": 3}}, "'vision_encoder' is not known"),
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
