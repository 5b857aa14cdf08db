"""Tiny random checkpoints of pooling models as Transformers writes them, and its own results for them.

Models that generate are `tests.checkpoints`.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from tests.checkpoints import BOS, BOS_ID, EOS, EOS_ID, VOCAB_SIZE, tokenizer_json

SIZES = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 130,
}
IDS = {"pad_token_id": 1, "bos_token_id": BOS_ID, "eos_token_id": EOS_ID}
FAMILIES: dict[str, dict[str, Any]] = {
    "Bert": SIZES,
    "Roberta": SIZES | IDS,
    "XLMRoberta": SIZES | IDS | {"type_vocab_size": 1},
    "DistilBert": {
        "vocab_size": VOCAB_SIZE,
        "dim": 64,
        "n_layers": 2,
        "n_heads": 4,
        "hidden_dim": 96,
        "max_position_embeddings": 130,
    },
    "ModernBert": SIZES
    | IDS
    | {"cls_token_id": 0, "sep_token_id": 1, "num_hidden_layers": 4, "local_attention": 16},
    "ModernBertDecoder": SIZES
    | IDS
    | {"cls_token_id": 0, "sep_token_id": 1, "num_hidden_layers": 4, "local_attention": 32},
    "NomicBert": SIZES,
    "Gte": SIZES | {"pad_token_id": 1},
    "JinaEmbeddingsV3": SIZES | IDS | {"type_vocab_size": 1},
    "EuroBert": SIZES | IDS | {"num_key_value_heads": 2, "mask_token_id": 2},
    "GPT2": {"vocab_size": VOCAB_SIZE, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 130}
    | {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID, "pad_token_id": 1},
    "Jamba": SIZES
    | IDS
    | {"num_key_value_heads": 2, "num_hidden_layers": 4, "attn_layer_period": 2}
    | {"attn_layer_offset": 1, "num_experts": 4, "mamba_dt_rank": 8, "use_mamba_kernels": False},
    "Qwen3": SIZES | IDS | {"num_key_value_heads": 2, "head_dim": 16},
    "Llama": SIZES | IDS | {"num_key_value_heads": 2},
    "Mistral": SIZES | IDS | {"num_key_value_heads": 2, "sliding_window": 8},
    "Gemma3Text": SIZES
    | IDS
    | {"num_key_value_heads": 2, "head_dim": 16, "use_bidirectional_attention": True}
    | {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"] * 2}
    | {"num_hidden_layers": 4, "query_pre_attn_scalar": 16},
    "Qwen2": SIZES | IDS | {"num_key_value_heads": 2},
}
"""Fields of each family's config."""


def write_pair_tokenizer(folder: Path) -> None:
    """The tokenizer of the other checkpoints; pairs are BOS first BOS second BOS, the second of type 1.

    Transformers reads the other special token as padding.."""
    from tokenizers import Tokenizer, processors

    tokenizer = Tokenizer.from_str(tokenizer_json(True))
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {BOS}",
        pair=f"{BOS} $A {BOS} $B:1 {BOS}:1",
        special_tokens=[(BOS, BOS_ID)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": BOS, "eos_token": EOS}))


def write_model(folder: Path, family: str, kind: str = "Model", **config: Any) -> Any:
    """A checkpoint of `family` and `kind` (Model, ForSequenceClassification...); the model, to compare with."""
    library = importlib.import_module("transformers")
    made = getattr(library, f"{family}Config")(**(FAMILIES[family] | config))
    torch.manual_seed(1)
    model = getattr(library, family + kind)(made).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            spread = 0.15 if weight.dim() == 2 else 0.2
            noise = torch.randn_like(weight) * spread
            is_norm = weight.dim() == 1 and name.endswith("weight")
            weight.copy_(noise + 1.0 if is_norm else noise)
    model.save_pretrained(folder)
    write_pair_tokenizer(folder)
    return model


def write_modules(
    folder: Path, pooling: str, *, normalizes: bool = True, dense: Any = None, max_length: int = 0
) -> None:
    """The files of sentence-transformers. dense: (weight, bias, activation) of a Dense module."""
    from safetensors.torch import save_file

    kinds = ["Transformer", "Pooling", *(["Dense"] if dense else [])]
    kinds += ["Normalize"] if normalizes else []
    modules = [
        {
            "idx": place,
            "name": str(place),
            "path": f"{place}_{kind}" if place else "",
            "type": f"sentence_transformers.models.{kind}",
        }
        for place, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    modes = {"cls": "cls_token", "mean": "mean_tokens", "last": "lasttoken", "max": "max_tokens"}
    settings = {f"pooling_mode_{name}": name == modes[pooling] for name in modes.values()}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    if max_length:
        (folder / "sentence_bert_config.json").write_text(
            json.dumps({"max_seq_length": max_length, "do_lower_case": False})
        )
    if dense:
        weight, bias, activation = dense
        inside = folder / "2_Dense"
        inside.mkdir()
        described = {
            "in_features": weight.shape[1],
            "out_features": weight.shape[0],
            "bias": True,
            "activation_function": activation,
        }
        (inside / "config.json").write_text(json.dumps(described))
        save_file({"linear.weight": weight, "linear.bias": bias}, inside / "model.safetensors")


@torch.no_grad()
def states(model: Any, ids: list[int], types: list[int] | None = None) -> torch.Tensor:
    """Transformers' last hidden states [T, C] of one sequence."""
    extra = {} if types is None else {"token_type_ids": torch.tensor([types])}
    return model(torch.tensor([ids]), **extra).last_hidden_state[0]


@torch.no_grad()
def logits(model: Any, ids: list[int], types: list[int] | None = None) -> torch.Tensor:
    """Transformers' logits of one sequence: [N], or [T, N] of its tokens."""
    extra = {} if types is None else {"token_type_ids": torch.tensor([types])}
    return model(torch.tensor([ids]), **extra).logits[0]


def unit(vector: torch.Tensor) -> torch.Tensor:
    """The vector with length 1."""
    return vector / vector.norm(dim=-1, keepdim=True)
