"""The config.json of families whose keys are not Llama's: state spaces alone, and encoders.

Those that are like Llama's are `gguf.config`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.models.loading.gguf.header import GgufHeader
from quire.models.loading.gguf.mixers import Settings, has_end
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
    "t5": t5,
}
"""By `general.architecture`."""
