"""Mistral's own form of a checkpoint: params.json and consolidated*.safetensors, in Hugging Face's words.

Heads of queries and keys turn in pairs of neighbours there, so their rows are put into halves as they are read.
Source: the layout of the reference code that comes with the published models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quire.protocol.errors import ModelLoadError
from quire.quant.stored import StoredTensor, plain

PARAMS = "params.json"
LINKED = "mistral_form.json"
"""A mark in the folder that was made of such a checkpoint."""
_KEYS = {
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "hidden_dim": "intermediate_size",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "norm_eps": "rms_norm_eps",
    "vocab_size": "vocab_size",
    "head_dim": "head_dim",
    "rope_theta": "rope_theta",
    "sliding_window": "sliding_window",
    "tied_embeddings": "tie_word_embeddings",
    "max_position_embeddings": "max_position_embeddings",
}
_NEEDED = ("dim", "n_layers", "hidden_dim", "n_heads", "norm_eps", "vocab_size")
_WITHOUT_EFFECT = frozenset(
    {"max_seq_len", "max_batch_size", "model_type", "use_biases", "causal", "moe", "use_cache"}
)
_DEFAULT_LEN = 128_000
_TOP = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
_LAYER = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.gate": "block_sparse_moe.gate",
}
_EXPERT = re.compile(r"feed_forward\.experts\.(\d+)\.(w[123])")
_NAME = re.compile(r"layers\.(\d+)\.(.+)\.weight")


def config_of(folder: Path, ends: Mapping[str, int]) -> dict[str, Any]:
    """config.json of a folder with params.json; `ends` are ids of the tokens around a text.

    Raises ModelLoadError for a file that is damaged, or a key that would change what is computed.
    """
    path = folder / PARAMS
    try:
        params = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelLoadError(f"{folder} has no {PARAMS}, which Mistral's form has") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{path} cannot be read: {error}") from error
    if not isinstance(params, dict):
        raise ModelLoadError(f"{path} must hold a JSON object")
    missing = [key for key in _NEEDED if key not in params]
    if missing:
        raise ModelLoadError(f"{path} lacks {', '.join(missing)}")
    unknown = [
        key
        for key, value in params.items()
        if key not in _KEYS and key not in _WITHOUT_EFFECT and value not in (None, False)
    ]
    if unknown or params.get("use_biases"):
        name = (unknown or ["use_biases"])[0]
        raise ModelLoadError(
            f"{path}: {name!r} is not known here, so the model might compute something else than it was trained "
            "for; take the Hugging Face form of the checkpoint"
        )
    config: dict[str, Any] = {
        _KEYS[key]: value for key, value in params.items() if key in _KEYS and value is not None
    }
    experts = params.get("moe")
    if experts:
        config["num_local_experts"] = experts["num_experts"]
        config["num_experts_per_tok"] = experts["num_experts_per_tok"]
    kind = "mixtral" if experts else "mistral"
    defaults = {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        "num_key_value_heads": params["n_heads"],
        "max_position_embeddings": params.get("max_seq_len", _DEFAULT_LEN),
        "rope_theta": 10_000.0,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "bos_token_id": ends.get("bos", 1),
        "eos_token_id": ends.get("eos", 2),
    }
    return defaults | config


def is_consolidated(names: Mapping[str, Any]) -> bool:
    """Whether tensors have the names of this form."""
    return "tok_embeddings.weight" in names


def stored_tensors(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> dict[str, StoredTensor]:
    """Every tensor by its name in the other form. Raises ModelLoadError for one that is not known."""
    heads = {
        "attention.wq": config["num_attention_heads"],
        "attention.wk": config["num_key_value_heads"],
    }
    found = {}
    for name, shape in shapes.items():
        stem = name.removesuffix(".weight")
        if stem in _TOP:
            found[f"{_TOP[stem]}.weight"] = plain(name, shape)
            continue
        match = _NAME.fullmatch(name)
        expert = _EXPERT.fullmatch(match[2]) if match else None
        target = _LAYER.get(match[2]) if match else None
        if expert is not None:
            target = f"block_sparse_moe.experts.{expert[1]}.{expert[2]}"
        if match is None or target is None:
            raise ModelLoadError(
                f"tensor {name!r} is not known in Mistral's form; take the Hugging Face form of the checkpoint"
            )
        pairs = heads.get(match[2])
        found[f"model.layers.{match[1]}.{target}.weight"] = (
            plain(name, shape)
            if pairs is None
            else StoredTensor(shape, {"weight": name}, decoder="pairs", options={"pairs": pairs})
        )
    return found
