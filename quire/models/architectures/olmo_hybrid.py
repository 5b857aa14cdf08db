"""OLMo Hybrid: delta nets, and attention in every fourth layer with norms behind its parts.

Spellings of delta nets are in `models.hf_delta`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense
from quire.models.hf_delta import conv_rules, delta_net, every_fourth, product_rules, state_rules
from quire.models.name_parts import LAYER, OURS, for_placement
from quire.models.names import LLAMA_NAMES, POST_NORM_RULES, QK_NORM_RULES, Rule
from quire.models.recurrent import GatedDeltaNet
from quire.models.spec import DecoderSpec, LayerSpec

_INITIAL = ("a_log_min", "a_log_max", "dt_min", "dt_max", "dt_init_floor")


def olmo_hybrid(hf: HfConfig) -> DecoderSpec:
    """`OlmoHybridForCausalLM`; defaults as in OlmoHybridConfig. Attention has no positions if their base is null."""
    hf.skip(*(f"linear_{name}" for name in _INITIAL))  # how weights began
    section = hf.section("rope_parameters")
    turned = section is None or section.has("rope_theta") or hf.has("rope_theta")
    if section is not None and not turned:
        section.skip("rope_type", "rope_theta")
    if turned:
        whole = attention(hf, normed=1e-6, qk_norm="full")
    else:
        whole = attention(hf, normed=1e-6, qk_norm="full", rope=None)
    heads = hf.int_("num_attention_heads")
    keys = hf.optional_int("linear_num_key_heads", heads) or heads
    size = hf.optional_int("linear_key_head_dim") or 3 * hf.int_("hidden_size") // (4 * keys)
    delta = delta_net(
        hf,
        heads=(heads, heads),
        sizes=(size, 2 * size),
        strength=2.0 if hf.bool_("linear_allow_neg_eigval", True) else 1.0,
        norm_eps=1e-5,
    )
    eps, part = hf.positive("rms_norm_eps", 1e-6), dense(hf)
    layers = [
        LayerSpec(
            mixer=mixer,
            feed_forward=part,
            placement="pre" if isinstance(mixer, GatedDeltaNet) else "post",
            norm_eps=eps,
        )
        for mixer in every_fourth(hf, delta, whole)
    ]
    return decoder(hf, layers, max_len=65_536)


_BLOCK = "linear_attn"
_PRE_NORMS = (
    Rule(f"{LAYER}.attention_layer_norm.weight", f"{OURS}.norm_before_mixer.weight"),
    Rule(f"{LAYER}.feedforward_layer_norm.weight", f"{OURS}.norm_before_feed_forward.weight"),
)
NAMES = LLAMA_NAMES.without(
    "layers.{layer}.norm_before_mixer", "layers.{layer}.norm_before_feed_forward"
).with_rules(
    *for_placement("pre", _PRE_NORMS),
    *for_placement("post", POST_NORM_RULES),
    *QK_NORM_RULES,
    *product_rules(
        _BLOCK,
        *((f"{name}_proj", "in", part) for part, name in enumerate("qkvg")),
        ("b_proj", "steps", 0),
        ("a_proj", "steps", 1),
        ("o_norm", "norm", 0),
        ("o_proj", "back", 0),
    ),
    *conv_rules(_BLOCK, *(f"{name}_conv1d" for name in "qkv")),
    *state_rules(_BLOCK),
)

ARCHITECTURES = {"OlmoHybridForCausalLM": Architecture(olmo_hybrid, NAMES)}
