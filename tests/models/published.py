"""config.json as published checkpoints have it: their true keys and values, and a shrunken copy of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

CONFIGS = Path(__file__).parent / "configs"
PUBLISHED = sorted(path.stem for path in CONFIGS.glob("*.json"))
"""gemma-3-4b-text is the text part of a file for text and images, with the name of the text model and
the outer eos_token_id."""

_SMALL = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "head_dim": 24,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "ffn_dim": 80,
    "word_embed_proj_dim": 64,
    "moe_intermediate_size": 40,
    "shared_expert_intermediate_size": 72,
    "num_experts": 6,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
}
SWITCH = 100  # tokens: where shrunken LongRoPE models change their factors


def config(name: str) -> dict[str, Any]:
    """A published config.json, parsed."""
    values: dict[str, Any] = json.loads((CONFIGS / f"{name}.json").read_text())
    return values


def shrunk(name: str) -> dict[str, Any]:
    """The same keys with small sizes; grouping of heads stays, windows shrink with the prompt.

    A pattern of windows keeps one layer without, and LongRoPE's lists are thinned out evenly.
    """
    values = config(name)
    heads, kv_heads = values.get("num_attention_heads"), values.get("num_key_value_heads")
    values |= {key: value for key, value in _SMALL.items() if key in values}
    if kv_heads is not None:
        values["num_key_value_heads"] = 4 if heads == kv_heads else min(kv_heads, 2)
    if values.get("sliding_window"):
        values["sliding_window"] = 48
    if values["model_type"] == "gemma3_text":
        values |= {"num_hidden_layers": 7, "vocab_size": 97}
        values |= {"layer_types": values["layer_types"][:7]} if "layer_types" in values else {}
    scaling = values.get("rope_scaling") or {}
    if scaling.get("type") == "longrope":
        pairs = int(8 * values.get("partial_rotary_factor", 1.0))
        for key in ("long_factor", "short_factor"):
            scaling[key] = scaling[key][:: 48 // pairs][:pairs]
        values["original_max_position_embeddings"] = SWITCH
    return values
