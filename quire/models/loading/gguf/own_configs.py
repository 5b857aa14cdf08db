"""The config.json of families whose keys are not Llama's: state spaces alone, and encoders.

Those that are like Llama's are `gguf.config`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.models.loading.gguf.header import GgufHeader
from quire.models.loading.gguf.mixers import Settings, has_end
from quire.models.loading.gguf.recent import gemma4
from quire.protocol.errors import ModelLoadError


def _states(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """What both kinds of state spaces have; their files tell no length that they were trained for."""
    for name in ("context_length", "feed_forward_length", "attention.head_count"):
        read.get(name)
    return {
        "hidden_size": read.needed("embedding_length"),
        "num_hidden_layers": read.needed("block_count"),
        "conv_kernel": read.needed("ssm.conv_kernel"),
        "state_size": read.needed("ssm.state_size"),
        "layer_norm_epsilon": read.needed("attention.layer_norm_rms_epsilon"),
        "use_conv_bias": has_end(header, "ssm_conv1d.bias"),
        "use_bias": has_end(header, "ssm_in.bias"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }


def mamba(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """Mamba, or Falcon Mamba, which norms what makes its steps and vectors."""
    config = _states(header, read)
    config["intermediate_size"] = read.needed("ssm.inner_size")
    config["time_step_rank"] = read.needed("ssm.time_step_rank")
    if read.get("ssm.dt_b_c_rms"):
        config |= {"architectures": ["FalconMambaForCausalLM"], "model_type": "falcon_mamba"}
    return config


def mamba2(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """Mamba 2."""
    config = _states(header, read)
    heads, inner = read.needed("ssm.time_step_rank"), read.needed("ssm.inner_size")
    if inner % heads or inner % config["hidden_size"]:
        raise ModelLoadError(
            f"{header.path}: mamba2.ssm.inner_size {inner} must be a multiple of {heads} heads and of the "
            f"width {config['hidden_size']}"
        )
    return config | {
        "num_heads": heads,
        "head_dim": inner // heads,
        "expand": inner // config["hidden_size"],
        "n_groups": read.needed("ssm.group_count"),
    }


def _encoder(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """What encoders have that are BERT's kin."""
    types = header.tensors.get("token_types.weight")
    return {
        "hidden_size": read.needed("embedding_length"),
        "num_hidden_layers": read.needed("block_count"),
        "num_attention_heads": read.needed("attention.head_count"),
        "intermediate_size": read.needed("feed_forward_length"),
        "layer_norm_eps": read.needed("attention.layer_norm_epsilon"),
        "type_vocab_size": 0 if types is None else types.shape[0],
    }


def bert(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """BERT, and RoBERTa and XLM-R, whose table of positions files begin where positions begin."""
    positions = header.tensors.get("position_embd.weight")
    if positions is None:
        raise ModelLoadError(f"{header.path} lacks the tensor 'position_embd.weight'")
    read.get("context_length")
    return _encoder(header, read) | {"max_position_embeddings": positions.shape[0]}


def nomic_bert(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """Nomic BERT of one feed-forward part a layer."""
    return _encoder(header, read) | {
        "max_position_embeddings": read.needed("context_length"),
        "rope_theta": read.get("rope.freq_base") or 1000.0,
    }


def nomic_experts(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """Nomic v2, in the spelling that it was published in; the bias of its experts' sums is in no file."""
    config = _encoder(header, read)
    return {
        "n_embd": config["hidden_size"],
        "n_layer": config["num_hidden_layers"],
        "n_head": config["num_attention_heads"],
        "n_inner": config["intermediate_size"],
        "layer_norm_epsilon": config["layer_norm_eps"],
        "type_vocab_size": config["type_vocab_size"],
        "max_trained_positions": read.needed("context_length"),
        "rotary_emb_base": read.get("rope.freq_base") or 10_000.0,
        "activation_function": "gelu",
        "qkv_proj_bias": "blk.0.attn_qkv.bias" in header.tensors,
        "mlp_fc1_bias": "blk.0.ffn_up.bias" in header.tensors,
        "mlp_fc2_bias": "blk.0.ffn_down.bias" in header.tensors,
        "moe_every_n_layers": read.needed("moe_every_n_layers"),
        "moe_top_k": read.needed("expert_used_count"),
        "num_experts": read.needed("expert_count"),
    }


def jina_v2(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """Jina v2: gates, and scores that fall with the distance; where nothing says how it pools, the mean."""
    return _encoder(header, read) | {
        "max_position_embeddings": read.needed("context_length"),
        "position_embedding_type": "alibi",
        "feed_forward_type": "geglu",
        "emb_pooler": "mean",
    }


_POOLED = {1: "mean", 2: "cls"}


def modern_bert(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """ModernBERT: every third layer sees everything, or as the file says; its head pools the mean, or likewise."""
    every = read.each("attention.sliding_window_pattern") or [3]
    if len(every) > 1 or not isinstance(every[0], int) or every[0] < 1:
        raise ModelLoadError(
            f"{header.path}: modern-bert.attention.sliding_window_pattern {every} must be one number"
        )
    layer, rms = "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon"
    eps = read.get(layer)
    found = read.get("classifier.pooling_type") or 1
    if found not in _POOLED:
        raise ModelLoadError(
            f"{header.path}: modern-bert.classifier.pooling_type is {found}; 1 (mean) and 2 (first token) are read"
        )
    return {
        "hidden_size": read.needed("embedding_length"),
        "num_hidden_layers": read.needed("block_count"),
        "num_attention_heads": read.needed("attention.head_count"),
        "intermediate_size": read.needed("feed_forward_length"),
        "max_position_embeddings": read.needed("context_length"),
        "norm_eps": read.needed(rms) if eps is None else eps,
        "global_rope_theta": read.get("rope.freq_base") or 160_000.0,
        "local_rope_theta": read.get("rope.freq_base_swa") or 10_000.0,
        "local_attention": read.needed("attention.sliding_window"),
        "global_attn_every_n_layers": every[0],
        "hidden_activation": read.get("hidden_activation") or "gelu",
        "attention_bias": "blk.0.attn_qkv.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in header.tensors,
        "norm_bias": "output_norm.bias" in header.tensors,
        "classifier_pooling": _POOLED[found],
    }


def t5(header: GgufHeader, read: Settings) -> dict[str, Any]:
    """T5 and Flan-T5; how far distances are told apart is 128 in all of them."""
    layers = read.needed("block_count")
    is_gated = "enc.blk.0.ffn_gate.weight" in header.tensors
    eps = read.get("attention.layer_norm_epsilon")
    return {
        "is_encoder_decoder": True,
        "d_model": read.needed("embedding_length"),
        "d_kv": read.needed("attention.key_length"),
        "d_ff": read.needed("feed_forward_length"),
        "num_heads": read.needed("attention.head_count"),
        "num_layers": layers,
        "num_decoder_layers": read.get("decoder_block_count") or layers,
        "n_positions": read.needed("context_length"),
        "layer_norm_epsilon": eps or read.needed("attention.layer_norm_rms_epsilon"),
        "relative_attention_num_buckets": read.needed("attention.relative_buckets_count"),
        "feed_forward_proj": "gated-gelu" if is_gated else "relu",
        "decoder_start_token_id": read.get("decoder_start_token_id") or 0,
        "tie_word_embeddings": "output.weight" not in header.tensors,
    }


OWN: dict[str, Callable[[GgufHeader, Settings], dict[str, Any]]] = {
    "mamba": mamba,
    "mamba2": mamba2,
    "bert": bert,
    "nomic-bert": nomic_bert,
    "nomic-bert-moe": nomic_experts,
    "jina-bert-v2": jina_v2,
    "modern-bert": modern_bert,
    "t5": t5,
    "gemma4": gemma4,
}
"""By `general.architecture`."""
