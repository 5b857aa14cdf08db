"""RecurrentGemma: gated linear recurrences, two for each attention over a window.

Spellings shared with Gemma are in `models.hf_gemma`.
"""

from __future__ import annotations

import struct

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder, shared_width
from quire.models.hf_gemma import gemma_activation
from quire.models.hf_parts import rope
from quire.models.name_parts import LAYER, OURS, pair, separate_heads
from quire.models.names import Rule, WeightMap
from quire.models.recurrent import GatedLru
from quire.models.spec import DecoderSpec, Dense, LayerSpec

_TRAINED_LEN = 8192  # of the published models, whose files do not say it
_KINDS = {"recurrent": False, "attention": True}


def recurrent_gemma(hf: HfConfig) -> DecoderSpec:
    """`RecurrentGemmaForCausalLM`; defaults as in RecurrentGemmaConfig. Source: arXiv 2404.07839."""
    hf.skip("w_init_variance_scale", "final_w_init_variance_scale")  # how weights began
    hf.skip("embeddings_scale_by_sqrt_dim", "layer_types", "layers_block_type")  # always; as below
    size, heads = hf.int_("hidden_size", 2560), hf.int_("num_attention_heads", 10)
    inner = hf.optional_int("lru_width") or size
    if inner % heads:
        raise hf.refuse("lru_width", f"it must be a multiple of num_attention_heads {heads}")
    head_size = size // heads
    if hf.int_("head_dim", head_size) != head_size:
        raise hf.refuse("head_dim", f"it must be hidden_size over num_attention_heads, {head_size}")
    attention = shared_width(
        hf,
        size,
        heads,
        num_kv_heads=hf.optional_int("num_key_value_heads", heads) or heads,
        rope=rope(hf, head_size=head_size, part=("partial_rotary_factor", 0.5)),
        window=hf.int_("attention_window_size", 2048),
        qkv_bias=hf.bool_("attention_bias", False),
        out_bias=True,
    )
    act = gemma_activation(hf)
    states = GatedLru(
        inner=inner, num_heads=heads, kernel=hf.int_("conv1d_width", 4), activation=act
    )
    hf.skip("_block_types")  # how older files spell the next
    key = "block_types" if hf.has("block_types") else "_block_types"
    kinds = hf.strings(key) or ["recurrent", "recurrent", "attention"]
    if wrong := set(kinds) - set(_KINDS):
        raise hf.refuse(key, f"{min(wrong)!r} is none of {', '.join(_KINDS)}")
    part = Dense(width=hf.int_("intermediate_size", 7680) // 2, activation=act, bias=True)
    eps, count = hf.positive("rms_norm_eps", 1e-6), hf.int_("num_hidden_layers", 26)
    layers = [
        LayerSpec(mixer=attention if _KINDS[kind] else states, feed_forward=part, norm_eps=eps)
        for kind in (kinds * count)[:count]
    ]
    return decoder(
        hf,
        layers,
        vocab_size=hf.int_("vocab_size", 256_000),
        hidden_size=size,
        max_len=_TRAINED_LEN,
        tie=True,
        embedding_scale=_rounded(size**0.5),
        logit_softcap=hf.positive("logits_soft_cap", 30.0),
    )


def _rounded(number: float) -> float:
    """The nearest number of bfloat16, in which Transformers keeps the factor of embeddings, whatever the dtype."""
    (bits,) = struct.unpack("<I", struct.pack("<f", number))
    bits += 0x7FFF + (bits >> 16 & 1)
    found: float = struct.unpack("<f", struct.pack("<I", bits & 0xFFFF0000))[0]
    return found


_BLOCK, _MIXER = f"{LAYER}.temporal_block", f"{OURS}.mixer"
_UNIT = f"{_BLOCK}.rg_lru"

NAMES = WeightMap(
    rules=(
        Rule("model.embed_tokens.weight", "embedding.weight"),
        Rule(
            f"{LAYER}.temporal_pre_norm.weight", f"{OURS}.norm_before_mixer.weight", fold="add_one"
        ),
        Rule(
            f"{LAYER}.channel_pre_norm.weight",
            f"{OURS}.norm_before_feed_forward.weight",
            fold="add_one",
        ),
        *separate_heads(_BLOCK, "q_proj", "k_proj", "v_proj"),
        *pair(f"{_BLOCK}.o_proj", f"{_MIXER}.out"),
        *pair(f"{_BLOCK}.linear_y", f"{_MIXER}.in", parts=(0,)),
        *pair(f"{_BLOCK}.linear_x", f"{_MIXER}.in", parts=(1,)),
        *pair(f"{_BLOCK}.conv_1d", f"{_MIXER}.conv"),
        *(
            Rule(f"{_UNIT}.{name}_gate_{kind}", target, parts=(part,))
            for part, name in enumerate(("input", "recurrent"))
            for kind, target in (("weight", f"{_MIXER}.gates"), ("bias", f"{_MIXER}.gates_bias"))
        ),
        Rule(f"{_UNIT}.recurrent_param", f"{_MIXER}.fall"),
        *pair(f"{_BLOCK}.linear_out", f"{_MIXER}.back"),
        *pair(f"{LAYER}.mlp_block.gate_proj", f"{OURS}.feed_forward.gate_up", parts=(0,)),
        *pair(f"{LAYER}.mlp_block.up_proj", f"{OURS}.feed_forward.gate_up", parts=(1,)),
        *pair(f"{LAYER}.mlp_block.down_proj", f"{OURS}.feed_forward.down"),
        Rule("model.final_norm.weight", "final_norm.weight", fold="add_one"),
        Rule("lm_head.weight", "head.weight"),
    ),
    ignored_if_tied=("lm_head.weight",),
)

ARCHITECTURES = {"RecurrentGemmaForCausalLM": Architecture(recurrent_gemma, NAMES)}
