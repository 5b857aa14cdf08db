"""What the config.json of single families says in words of its own: numbers derived from others, lists of layers.

Everything else is in the table of `gguf.families`.
"""

from __future__ import annotations

import struct
from typing import Any

from quire.models.loading.gguf.header import GgufHeader
from quire.models.loading.gguf.mixers import ADJUST, Settings
from quire.models.loading.gguf.recent import RECENT
from quire.protocol.errors import ModelLoadError

_NO_POSITIONS = ("gpt2", "starcoder", "bloom")
_OWN_HEADS = (*_NO_POSITIONS, "gptneox", "falcon")
_WITH_DRAFTS = ("glm4moe", "exaone-moe", "deepseek32", "glm-dsa", "qwen35", "qwen35moe")
"""Families whose number of layers counts those at the end that draft further tokens."""
_REAL_WIDTH = ("phi2", "gpt2", "starcoder", "falcon", "gptneox", "starcoder2")


def adjusted(name: str, config: dict[str, Any], header: GgufHeader, read: Settings) -> None:
    """Changes the config.json of a file whose `general.architecture` is `name`.

    Raises ModelLoadError for a form of the family that is not read.
    """
    if name in _OWN_HEADS:
        heads = config.pop("num_key_value_heads")
        if name == "falcon":
            _falcon(config, header, heads)
        elif name == "starcoder":
            config["multi_query"] = heads == 1
    if name in _NO_POSITIONS:
        del config["rope_theta"]
    if name in _REAL_WIDTH:
        key = {"gpt2": "n_inner", "starcoder": "n_inner", "falcon": "ffn_hidden_size"}.get(name)
        up = header.tensors.get("blk.0.ffn_up.weight")
        if up is not None:  # the setting is four times the width whatever the tensor has
            config[key or "intermediate_size"] = up.shape[0]
    if name == "gptneox":
        config["rotary_pct"] = config.pop("partial_rotary_factor", 1.0)
        config["rotary_emb_base"] = config.pop("rope_theta")
    if name == "minicpm":
        config["scale_emb"] = read.get("embedding_scale") or 1.0
        scale, logit = read.get("residual_scale"), read.get("logit_scale")
        config["scale_depth"] = shortest((scale or 1.0) * config["num_hidden_layers"] ** 0.5)
        config["dim_model_base"] = round(config["hidden_size"] / (logit or 1.0))
    if name == "gpt-oss" and "rope_scaling" in config:
        config["rope_scaling"]["truncate"] = False
    if name == "minimax-m2":
        config.pop("partial_rotary_factor", None)
    if name in _WITH_DRAFTS:
        config["num_hidden_layers"] -= read.get("nextn_predict_layers") or 0
    if name == "olmo" and read.get("attention.clamp_kqv"):
        config["clip_qkv"] = read.get("attention.clamp_kqv")
    own = ADJUST.get(name) or RECENT.get(name)
    if own is not None:
        own(config, header, read)
    if name in ("exaone4", "exaone-moe", "cohere2", "olmo2"):
        _windows(name, config, read)
    if read.get("attention.causal") is False and "use_bidirectional_attention" not in config:
        raise ModelLoadError(
            f"{header.path}: {name}.attention.causal is false; of this architecture only models are read whose "
            "tokens see those before them"
        )
    local = read.get("rope.freq_base_swa")
    if local is not None and name in ("gemma3", "gemma3n", "gemma-embedding"):
        config["rope_local_base_freq"] = local
    elif local not in (None, config.get("rope_theta")):
        raise ModelLoadError(
            f"{header.path}: {name}.rope.freq_base_swa is {local} beside {config.get('rope_theta')}; "
            "layers with a window that have another base are not read"
        )


def shortest(value: float) -> float:
    """The number with the fewest digits that is `value` in float32: 1e-06 for 9.99999997e-07."""
    for digits in range(1, 10):
        short = float(f"{value:.{digits}g}")
        if _float32(short) == _float32(value):
            return short
    return value


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return b""


def _windows(name: str, config: dict[str, Any], read: Settings) -> None:
    """Which layers look back no further than a window: a list, or every layer but the last of so many."""
    pattern, window = (
        read.each("attention.sliding_window_pattern"),
        read.get("attention.sliding_window"),
    )
    if not window:
        return
    count = config["num_hidden_layers"]
    pattern = pattern[:count]
    if len(pattern) != count:
        step = pattern[0] if pattern else 4
        pattern = [bool((layer + 1) % step) for layer in range(count)]
    kinds = ("full_attention", "sliding_attention")
    config["layer_types"] = [kinds[bool(one)] for one in pattern]
    if name == "olmo2":
        config["architectures"], config["model_type"] = ["Olmo3ForCausalLM"], "olmo3"
        config["sliding_window"] = window


def _falcon(config: dict[str, Any], header: GgufHeader, heads: int) -> None:
    """Falcon's three forms: two norms with groups of heads, and one of them with one key for all."""
    is_new = "blk.0.attn_norm_2.weight" in header.tensors
    config["new_decoder_architecture"] = is_new
    config["num_kv_heads"] = heads
    config["multi_query"] = heads == 1
    config["parallel_attn"], config["bias"] = True, "blk.0.ffn_up.bias" in header.tensors
    if not is_new and heads != 1:
        raise ModelLoadError(
            f"{header.path}: Falcon with {heads} heads of keys and one norm is not read"
        )
