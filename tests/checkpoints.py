"""Tiny random checkpoints on disk, in the form that the hub has them: config, weights, tokenizer.

Leaves reading them to the tests; `tests/conftest.py` keeps each one for the length of a session.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

BOS, EOS = "<|bos|>", "<|eos|>"
BOS_ID, EOS_ID = 0, 1
TOKENIZER_SIZE = 500
VOCAB_SIZE = 512  # the tokenizer rounded up: 12 ids without a token, as published checkpoints have
EPS = 1e-3  # large, so that a model that reads it wrongly shows

TEXT = """\
The river runs down from the hills to the harbour, and the ships wait there for the morning tide.
A baker rises before the sun; she mixes flour, water, salt and yeast, and lets the dough rest.
When the bell of the town hall rings twice, the children leave the school and run to the market.
"Where are you going?" asked the old sailor. "To the lighthouse," said the girl, "and then home."
Numbers are counted one by one: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 100, 1000, 2024.
def add(first, second):
    return first + second

for index in range(10):
    print(index, add(index, index))
{"name": "stone", "weight": 12.5, "tags": ["grey", "round"], "found": true, "owner": null}
Snow fell on the mountain during the night and the road to the village was closed until noon.
The engineer measured the bridge again; the answer was the same, and nobody could say why.
Bread, cheese, apples and honey were on the table, but the guests had already gone to the garden.
If the wind turns to the north, we shall sail in the evening; if it does not, we shall stay here.
Über den Fluss führt eine alte Brücke; sie ist schmal, aber sie hält. Où est la gare ? Là-bas.
The clock on the wall stopped at seven, the letter was never sent, and the answer never came.
In the library there are books about stars, about plants, about machines and about the sea.
"""

Checkpoint = Callable[..., Path]


def prompt_ids(length: int, seed: int = 0) -> list[int]:
    """`length` ordinary token ids, the same for the same seed; no special tokens among them."""
    return np.random.default_rng(seed).integers(2, TOKENIZER_SIZE, length).tolist()


@lru_cache(maxsize=2)
def tokenizer_json(add_bos: bool) -> str:
    """A byte-level BPE of TOKENIZER_SIZE tokens trained on TEXT; with `add_bos`, texts begin with BOS."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_SIZE,
        special_tokens=[BOS, EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    assert tokenizer.get_vocab_size() == TOKENIZER_SIZE, (
        "TEXT is too short for the tokenizer's size"
    )
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
        )
    return str(tokenizer.to_str())


def write_tokenizer(folder: Path, *, add_bos: bool = True, max_len: int = 4096) -> None:
    """tokenizer.json and tokenizer_config.json into `folder`."""
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "add_bos_token": add_bos,
        "model_max_length": max_len,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer.json").write_text(tokenizer_json(add_bos))
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def llama(
    folder: Path,
    *,
    seed: int = 0,
    tie: bool = False,
    rope_scaling: dict[str, Any] | None = None,
    kv_heads: int = 2,
    layers: int = 2,
    hidden: int = 64,
    max_len: int = 4096,
    dtype: str = "float32",
    shards: int = 1,
    deviation: float = 0.2,
    **config: Any,
) -> Path:
    """LlamaForCausalLM with 4 heads of 16; `config` goes over the fields of LlamaConfig."""
    from transformers import LlamaConfig, LlamaForCausalLM

    fields = _common(tie, kv_heads, layers, hidden, max_len) | {
        "rope_parameters": _rope(20_000.0, rope_scaling),
        "head_dim": 16,
    }
    made = LlamaConfig(**(fields | config))
    options = {"seed": seed, "dtype": dtype, "shards": shards, "deviation": deviation}
    return _write(folder, LlamaForCausalLM, made, **options)


def qwen3(
    folder: Path,
    *,
    seed: int = 0,
    tie: bool = True,
    rope_scaling: dict[str, Any] | None = None,
    kv_heads: int = 2,
    layers: int = 2,
    hidden: int = 64,
    max_len: int = 4096,
    dtype: str = "float32",
    shards: int = 1,
    deviation: float = 0.2,
    **config: Any,
) -> Path:
    """Qwen3ForCausalLM with 4 heads of 32, so that heads times head size is not the width."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    fields = _common(tie, kv_heads, layers, hidden, max_len) | {
        "rope_parameters": _rope(50_000.0, rope_scaling),
        "head_dim": 32,
    }
    made = Qwen3Config(**(fields | config))
    options = {"seed": seed, "dtype": dtype, "shards": shards, "deviation": deviation}
    return _write(folder, Qwen3ForCausalLM, made, **options, add_bos=False)


def gemma2(
    folder: Path,
    *,
    seed: int = 0,
    tie: bool = True,
    rope_scaling: dict[str, Any] | None = None,
    kv_heads: int = 2,
    layers: int = 2,
    hidden: int = 64,
    max_len: int = 4096,
    dtype: str = "float32",
    shards: int = 1,
    window: int = 64,
    deviation: float = 0.2,
    **config: Any,
) -> Path:
    """Gemma2ForCausalLM: layers 0, 2, … look `window` tokens back; soft caps low enough to bite."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    fields = _common(tie, kv_heads, layers, hidden, max_len) | {
        "rope_parameters": _rope(20_000.0, rope_scaling),
        "head_dim": 32,
        "query_pre_attn_scalar": 24,
        "sliding_window": window,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 10.0,
    }
    made = Gemma2Config(**(fields | config))
    options = {"seed": seed, "dtype": dtype, "shards": shards, "deviation": deviation}
    return _write(folder, Gemma2ForCausalLM, made, **options)


def bamba(
    folder: Path,
    *,
    seed: int = 0,
    tie: bool = False,
    kv_heads: int = 2,
    layers: int = 3,
    hidden: int = 64,
    max_len: int = 4096,
    dtype: str = "float32",
    shards: int = 1,
    deviation: float = 0.2,
    **config: Any,
) -> Path:
    """BambaForCausalLM: layer 1 attends, the others have a state-space mixer of 8 heads."""
    from transformers import BambaConfig, BambaForCausalLM

    fields = _common(tie, kv_heads, layers, hidden, max_len) | {
        "rope_theta": 20_000.0,
        "attn_layer_indices": [1],
        "mamba_n_heads": 8,
        "mamba_d_head": hidden // 4,
        "mamba_d_state": 16,
    }
    made = BambaConfig(**(fields | config))
    options = {"seed": seed, "dtype": dtype, "shards": shards, "deviation": deviation}
    return _write(folder, BambaForCausalLM, made, **options)


def mamba2(
    folder: Path,
    *,
    seed: int = 0,
    tie: bool = False,
    layers: int = 2,
    hidden: int = 64,
    dtype: str = "float32",
    shards: int = 1,
    deviation: float = 0.2,
    **config: Any,
) -> Path:
    """Mamba2ForCausalLM with 8 heads in two groups."""
    from transformers import Mamba2Config, Mamba2ForCausalLM

    fields = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_heads": 8,
        "head_dim": hidden // 4,
        "n_groups": 2,
        "state_size": 16,
        "layer_norm_epsilon": EPS,
        "tie_word_embeddings": tie,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "max_position_embeddings": 4096,
    }
    made = Mamba2Config(**(fields | config))
    options = {"seed": seed, "dtype": dtype, "shards": shards, "deviation": deviation}
    return _write(folder, Mamba2ForCausalLM, made, **options)


def qwen3_next(
    folder: Path,
    *,
    seed: int = 0,
    tie: bool = False,
    kv_heads: int = 2,
    layers: int = 3,
    hidden: int = 64,
    max_len: int = 4096,
    dtype: str = "float32",
    shards: int = 1,
    deviation: float = 0.2,
    **config: Any,
) -> Path:
    """Qwen3NextForCausalLM: layer 1 attends, the others are gated delta nets; no experts."""
    from transformers import Qwen3NextConfig, Qwen3NextForCausalLM

    kinds = ["full_attention" if layer == 1 else "linear_attention" for layer in range(layers)]
    fields = _common(tie, kv_heads, layers, hidden, max_len) | {
        "layer_types": kinds,
        "head_dim": 16,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 16,
        "linear_value_head_dim": 16,
        "mlp_only_layers": list(range(layers)),
    }
    made = Qwen3NextConfig(**(fields | config))
    options = {"seed": seed, "dtype": dtype, "shards": shards, "deviation": deviation}
    return _write(folder, Qwen3NextForCausalLM, made, **options)


def lfm2(
    folder: Path,
    *,
    seed: int = 0,
    tie: bool = True,
    kv_heads: int = 2,
    layers: int = 3,
    hidden: int = 64,
    max_len: int = 4096,
    dtype: str = "float32",
    shards: int = 1,
    deviation: float = 0.2,
    **config: Any,
) -> Path:
    """Lfm2ForCausalLM: layer 1 attends, the others are gated short convolutions."""
    from transformers import Lfm2Config, Lfm2ForCausalLM

    fields = _common(tie, kv_heads, layers, hidden, max_len) | {
        "full_attn_idxs": [1],
        "norm_eps": EPS,
    }
    del fields["rms_norm_eps"]
    made = Lfm2Config(**(fields | config))
    options = {"seed": seed, "dtype": dtype, "shards": shards, "deviation": deviation}
    return _write(folder, Lfm2ForCausalLM, made, **options)


def minimax(
    folder: Path,
    *,
    seed: int = 0,
    tie: bool = False,
    kv_heads: int = 2,
    layers: int = 3,
    hidden: int = 64,
    max_len: int = 4096,
    dtype: str = "float32",
    shards: int = 1,
    deviation: float = 0.2,
    **config: Any,
) -> Path:
    """MiniMaxForCausalLM: layer 1 attends, the others have linear attention with 4 heads; four experts."""
    from transformers import MiniMaxConfig, MiniMaxForCausalLM

    kinds = ["full_attention" if layer == 1 else "linear_attention" for layer in range(layers)]
    fields = _common(tie, kv_heads, layers, hidden, max_len) | {
        "layer_types": kinds,
        "head_dim": 16,
        "num_local_experts": 4,
        "rope_parameters": _rope(20_000.0, None),
        "mlp_alpha_factor": 1.5,
    }
    made = MiniMaxConfig(**(fields | config))
    options = {"seed": seed, "dtype": dtype, "shards": shards, "deviation": deviation}
    return _write(folder, MiniMaxForCausalLM, made, **options, published=_mixtral_shapes)


def gemma3n(folder: Path, **config: Any) -> Path:
    """Gemma3nForCausalLM: three streams; the last two of five layers share what earlier ones cached."""
    from transformers import Gemma3nForCausalLM, Gemma3nTextConfig

    streams: dict[str, Any] = {"altup_num_inputs": 3, "altup_active_idx": 1, "laurel_rank": 8}
    streams |= {"activation_sparsity_pattern": [0.7, 0.0, 0.4, 0.0, 0.0]}
    streams["deviation"] = 0.1  # larger ones repeat themselves
    return _edge(folder, Gemma3nForCausalLM, Gemma3nTextConfig, streams | config)


def gemma4(folder: Path, **config: Any) -> Path:
    """Gemma4ForCausalLM: likewise, with larger heads in the layers without a window."""
    from transformers import Gemma4ForCausalLM, Gemma4TextConfig

    return _edge(folder, Gemma4ForCausalLM, Gemma4TextConfig, {"global_head_dim": 48} | config)


def _edge(folder: Path, model_class: Any, config_class: Any, config: dict[str, Any]) -> Path:
    options = {"seed": 0, "dtype": "float32", "shards": 1, "deviation": 0.2}
    options |= {name: config.pop(name) for name in options if name in config}
    kinds = ("sliding", "full", "sliding", "sliding", "full")
    fields = _common(True, 2, len(kinds), 64, 4096) | {
        "layer_types": [f"{kind}_attention" for kind in kinds],
        "num_kv_shared_layers": 2,
        "head_dim": 32,
        "sliding_window": 64,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": VOCAB_SIZE,
        "final_logit_softcapping": 10.0,
    }
    return _write(folder, model_class, config_class(**(fields | config)), **options)


FAMILIES: dict[str, Checkpoint] = {
    "llama": llama,
    "qwen3": qwen3,
    "gemma2": gemma2,
    "bamba": bamba,
    "mamba2": mamba2,
    "qwen3_next": qwen3_next,
    "lfm2": lfm2,
    "minimax": minimax,
    "gemma3n": gemma3n,
    "gemma4": gemma4,
}


def make(family: str, folder: Path, **config: Any) -> Path:
    """A checkpoint of one of FAMILIES; or, without a tokenizer, of a case of that name in `tests.models.families`.

    config  keywords of the family, or fields of config.json over the case's.
    """
    if family in FAMILIES:
        return FAMILIES[family](folder, **config)
    from tests.models.families import CASES
    from tests.models.harness import write_checkpoint

    sizes = {"vocab_size": VOCAB_SIZE, "max_position_embeddings": 4096}
    return write_checkpoint(folder, CASES[family].config | sizes | config)


def _common(tie: bool, kv_heads: int, layers: int, hidden: int, max_len: int) -> dict[str, Any]:
    return {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": hidden,
        "intermediate_size": hidden * 5 // 2,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": max_len,
        "rms_norm_eps": EPS,
        "tie_word_embeddings": tie,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": None,
    }


def _rope(theta: float, scaling: dict[str, Any] | None) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta} | (scaling or {})


def _write(
    folder: Path,
    model_class: Any,
    config: Any,
    *,
    seed: int,
    dtype: str,
    shards: int,
    deviation: float,
    add_bos: bool = True,
    published: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Path:
    """`published` makes the shapes of published tensors of those that Transformers computes with."""
    import torch

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config.dtype = dtype
    config.architectures = [model_class.__name__]
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in model_class(config).state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    shapes = published(shapes)
    neutral = _gemma_norm if config.model_type == "gemma2" else _plain_norm
    tie = config.tie_word_embeddings
    weights = _random_weights(shapes, seed, neutral, tie=tie, deviation=deviation)
    _save_shards(folder, {name: t.to(getattr(torch, dtype)) for name, t in weights.items()}, shards)
    config.save_pretrained(folder)
    generation = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))
    write_tokenizer(folder, add_bos=add_bos, max_len=config.max_position_embeddings)
    return folder


def _mixtral_shapes(shapes: dict[str, Any]) -> dict[str, Any]:
    """Each expert has tensors of its own; rates of decay are no weights."""
    found: dict[str, Any] = {}
    for name, shape in shapes.items():
        block, _, part = name.replace(".mlp.", ".block_sparse_moe.").rpartition(".")
        if part == "gate_up_proj":
            size = (shape[1] // 2, shape[2])
            found |= {
                f"{block}.{one}.{w}.weight": size for one in range(shape[0]) for w in ("w1", "w3")
            }
        elif part == "down_proj":
            found |= {f"{block}.{one}.w2.weight": shape[1:] for one in range(shape[0])}
        elif not part.endswith(("_decay", "slope_rate")):
            found[f"{block}.{part}"] = shape
    return found


def _plain_norm(name: str) -> float:
    return 1.0


def _gemma_norm(name: str) -> float:
    """Gemma multiplies by 1 + w. Strong layers, since its scaled and tied embedding would repeat the last token."""
    return 6.0 if ".post_" in name else 0.5 if name == "model.norm.weight" else 0.0


def _random_weights(
    shapes: dict[str, tuple[int, ...]],
    seed: int,
    norm: Callable[[str], float],
    *,
    tie: bool,
    deviation: float,
) -> dict[str, Any]:
    """Norms and biases off their neutral value by 0.2; matrices with `deviation`, usually ten times a fresh model's.

    Rows of the head for EOS and for ids without a token are small, so that these are seldom drawn.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        neutral = norm(name) if name.endswith("norm.weight") else 0.0
        weights[name] = neutral + (deviation if len(shape) == 2 else 0.2) * noise
    head = weights["model.embed_tokens.weight" if tie else "lm_head.weight"]
    head[EOS_ID] *= 0.1
    head[TOKENIZER_SIZE:] *= 0.1
    return weights


def _save_shards(folder: Path, weights: dict[str, Any], shards: int) -> None:
    from safetensors.torch import save_file

    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    where = {
        name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors"
        for i, name in enumerate(names)
    }
    for file in sorted(set(where.values())):
        part = {name: weights[name] for name in names if where[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    total = sum(t.numel() * t.element_size() for t in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
