"""Mistral's own form of a checkpoint: params.json and consolidated*.safetensors, in Hugging Face's words.

Heads of queries and keys turn in pairs of neighbours there, so their rows are put into halves as they are read.
Source: the layout of the reference code that comes with the published models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
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
    **{
        key: key
        for key in (
            *("q_lora_rank", "kv_lora_rank"),
            *("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"),
        )
    },
}
_EXPERTS = {
    "num_experts": "n_routed_experts",
    "num_experts_per_tok": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
    "expert_hidden_dim": "moe_intermediate_size",
    "first_k_dense_replace": "first_k_dense_replace",
    "route_every_n": "moe_layer_freq",
    "routed_scale": "routed_scaling_factor",
    "num_expert_groups": "n_group",
    "num_expert_groups_per_tok": "topk_group",
}
"""Of experts beside ones that all tokens pass; Mixtral's have the numbers alone."""
_NEEDED = ("dim", "n_layers", "hidden_dim", "n_heads", "norm_eps", "vocab_size")
_WITHOUT_EFFECT = frozenset(
    {"max_seq_len", "max_batch_size", "model_type", "use_biases", "causal", "use_cache"}
)
_READ_BELOW = frozenset(
    {"quantization", "moe", "yarn", "llama_4_scaling", "vision_encoder", "multimodal"}
)
_SPREAD = frozenset({"expert_parallel", "expert_model_parallel"})
"""Of experts: over how many devices they were spread."""
_YARN = ("alpha", "apply_scale", "beta", "factor", "original_max_position_embeddings")
_GROWTH = ("beta", "original_max_position_embeddings")
_OTHER_PARTS = ("vision_encoder.", "vision_language_adapter.", "patch_merger.", "pre_mm_projector")
"""Starts of names of what sees; the decoder of the text is served."""
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
    "attention.wq_a": "self_attn.q_a_proj",
    "attention.q_a_norm": "self_attn.q_a_layernorm",
    "attention.wq_b": "self_attn.q_b_proj",
    "attention.wkv_a_with_mqa": "self_attn.kv_a_proj_with_mqa",
    "attention.kv_a_norm": "self_attn.kv_a_layernorm",
    "attention.wkv_b": "self_attn.kv_b_proj",
    "gate": "mlp.gate",
    "shared_experts.w1": "mlp.shared_experts.gate_proj",
    "shared_experts.w2": "mlp.shared_experts.down_proj",
    "shared_experts.w3": "mlp.shared_experts.up_proj",
}
_EXPERT = re.compile(r"(feed_forward\.)?experts\.(\d+)\.(w[123])")
_PROJECTIONS = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
_NAME = re.compile(r"layers\.(\d+)\.(.+)")
_KINDS = {"weight": "weight", "qscale_weight": "weight_scale", "qscale_act": "input_scale"}


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
        if key not in {*_KEYS, *_WITHOUT_EFFECT, *_READ_BELOW} and value not in (None, False)
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
    experts, positions = _experts(path, params), _positions(path, params)
    if positions:
        config["rope_parameters"] = positions
    kind, name = "mistral", "MistralForCausalLM"
    if "n_shared_experts" in experts:
        kind, name = "mistral4", "MistralLarge3ForCausalLM"
    elif experts:
        kind, name = "mixtral", "MixtralForCausalLM"
    elif "llama_4_scaling_beta" in positions:
        kind, name = "ministral3", "Ministral3ForCausalLM"
    if ("kv_lora_rank" in config) != (kind == "mistral4"):
        raise ModelLoadError(
            f"{path}: latents of keys (kv_lora_rank) are known with experts that all tokens pass, and only there"
        )
    defaults = {
        "architectures": [name],
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
    return defaults | config | experts | _quantization(path, params)


def _experts(path: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """What `moe` says, in the words of Mixtral, or of Mistral Large 3 where all tokens pass some; or nothing."""
    experts = params.get("moe") or {}
    if experts.get("num_shared_experts"):
        if others := set(experts) - set(_EXPERTS) - _SPREAD:
            raise ModelLoadError(f"{path}: moe.{min(others)} is not known here")
        return {_EXPERTS[key]: value for key, value in experts.items() if key in _EXPERTS}
    names = {"num_local_experts": "num_experts", "num_experts_per_tok": "num_experts_per_tok"}
    return {mine: experts[theirs] for mine, theirs in names.items() if experts}


def _positions(path: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """What `yarn` and `llama_4_scaling` say, as Transformers has it; empty where they say nothing."""
    yarn, growth = (
        _part(path, params, "yarn", _YARN),
        _part(path, params, "llama_4_scaling", _GROWTH),
    )
    lengths = {part[_GROWTH[1]] for part in (yarn, growth) if part}
    if len(lengths) > 1 or yarn.get("apply_scale"):
        raise ModelLoadError(
            f"{path}: yarn and llama_4_scaling must name one trained length, and yarn.apply_scale be false"
        )
    if not lengths:
        return {}
    found = {"rope_type": "default", "rope_theta": params.get("rope_theta", 10_000.0)}
    found[_GROWTH[1]] = lengths.pop()
    if yarn:
        found |= {"rope_type": "yarn", "mscale": 1.0, "mscale_all_dim": 1.0}
        names = {"factor": "factor", "beta": "beta_fast", "alpha": "beta_slow"}
        found |= {names[key]: value for key, value in yarn.items() if key in names}
    return found | ({"llama_4_scaling_beta": growth["beta"]} if growth else {})


def _part(
    path: Path, params: Mapping[str, Any], name: str, keys: tuple[str, ...]
) -> dict[str, Any]:
    """An inner object with these keys, all of them; empty if it is not there."""
    found = params.get(name) or {}
    if found and (not isinstance(found, dict) or set(found) != set(keys)):
        raise ModelLoadError(f"{path}: {name} must be an object with {', '.join(keys)}")
    return dict(found)


def is_consolidated(names: Mapping[str, Any]) -> bool:
    """Whether tensors have the names of this form."""
    return "tok_embeddings.weight" in names


def stored_tensors(
    shapes: Mapping[str, tuple[int, ...]], config: Mapping[str, Any]
) -> dict[str, StoredTensor]:
    """Every tensor by its name in the other form. Raises ModelLoadError for one that is not known."""
    tensors = {name: plain(name, shapes[own]) for name, own in own_names(shapes).items()}
    return with_own_names(tensors, own_names(shapes), config)


def own_names(names: Iterable[str]) -> dict[str, str]:
    """The names here by those in the other form, of what sees left out.

    Raises ModelLoadError for one that is not known.
    """
    found = {}
    for own in names:
        if own.startswith(_OTHER_PARTS):
            continue
        stem, _, kind = own.rpartition(".")
        match = _NAME.fullmatch(stem)
        expert = _EXPERT.fullmatch(match[2]) if match else None
        target = _LAYER.get(match[2]) if match else None
        if expert is not None and expert[1]:
            target = f"block_sparse_moe.experts.{expert[2]}.{expert[3]}"
        elif expert is not None:
            target = f"mlp.experts.{expert[2]}.{_PROJECTIONS[expert[3]]}"
        place = f"model.layers.{match[1]}.{target}" if match and target else _TOP.get(stem)
        if place is None or kind not in _KINDS:
            raise ModelLoadError(
                f"tensor {own!r} is not known in Mistral's form; take the Hugging Face form of the checkpoint"
            )
        found[f"{place}.{_KINDS[kind]}"] = own
    return found


def with_own_names(
    tensors: Mapping[str, StoredTensor], names: Mapping[str, str], config: Mapping[str, Any]
) -> dict[str, StoredTensor]:
    """The same tensors, made of those here; heads of q and k that turn in pairs come in halves."""
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    found = {}
    for name, tensor in tensors.items():
        members = {role: names[member] for role, member in tensor.members.items()}
        tensor = replace(tensor, members=members)
        key = heads.get(name.split(".")[-2])
        if key is not None and "kv_lora_rank" not in config:
            options = {**tensor.options, "pairs": config[key]}
            tensor = replace(tensor, decoder=tensor.decoder or "pairs", options=options)
        found[name] = tensor
    return found


def _quantization(path: Path, params: Mapping[str, Any]) -> dict[str, Any]:
    """What `quantization` says, as the other form has it; empty where there is none."""
    settings = params.get("quantization")
    if not settings:
        return {}
    inputs = {None: "static", "TENSOR": "static", "NO_SCALES": "dynamic"}
    known = isinstance(settings, dict) and set(settings) <= {"qformat_weight", "qscheme_act"}
    if not known or settings.get("qformat_weight") != "fp8_e4m3":
        raise ModelLoadError(f"{path}: quantization is {settings!r}; fp8_e4m3 is read")
    if settings.get("qscheme_act") not in inputs:
        raise ModelLoadError(
            f"{path}: qscheme_act is {settings['qscheme_act']!r}; it must be TENSOR or NO_SCALES"
        )
    scheme = inputs[settings.get("qscheme_act")]
    return {"quantization_config": {"quant_method": "fp8", "activation_scheme": scheme}}
