"""DBRX: LayerNorms without biases, q, k and v in one tensor and clipped, all experts in one tensor.

Spellings shared with other families are in `models.hf_decoder` and `models.hf_parts`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder
from quire.models.hf_parts import ACTIVATIONS
from quire.models.name_parts import joined_heads, ours
from quire.models.names import Rule, WeightMap
from quire.models.spec import Attention, DecoderSpec, LayerSpec, Moe, Rope


def dbrx(hf: HfConfig) -> DecoderSpec:
    """`DbrxForCausalLM`. The base of positions is `attn_config.rope_theta`, as in its own code.

    Transformers from version 5 on reads `rope_parameters` instead, which published files do not have.
    """
    size, heads = hf.int_("d_model", 2048), hf.int_("n_heads", 16)
    if size % heads:
        raise hf.refuse("d_model", f"it must be a multiple of n_heads {heads}")
    outer = hf.section("rope_parameters")
    theta = 10_000.0
    if outer is not None:
        outer.choice("rope_type", {"default": None}, "default")
        theta = outer.positive("rope_theta", theta)
    attention = hf.section("attn_config") or HfConfig({})
    # Training, and what Transformers writes beside attn_config.kv_n_heads.
    hf.skip("emb_pdrop", "num_key_value_heads")
    layer = LayerSpec(
        mixer=Attention(
            num_heads=heads,
            num_kv_heads=attention.int_("kv_n_heads", 1),
            head_size=size // heads,
            rope=Rope(dim=size // heads, theta=attention.positive("rope_theta", theta)),
            clip=attention.optional_positive("clip_qkv") or 0.0,
        ),
        feed_forward=_experts(hf.section("ffn_config") or HfConfig({})),
        norm="layer_unbiased",
        norm_eps=1e-5,
    )
    return decoder(
        hf,
        (layer,) * hf.int_("n_layers", 24),
        hidden_size=size,
        max_position_embeddings=hf.int_("max_seq_len", 2048),
    )


def _experts(hf: HfConfig) -> Moe:
    hf.skip("hidden_size", "moe_jitter_eps", "moe_loss_weight")
    activation = hf.section("ffn_act_fn")
    power = hf.optional_positive("moe_normalize_expert_weights", 1.0)
    if power not in (None, 1.0):
        raise hf.refuse("moe_normalize_expert_weights", "weights are divided by their sum or not")
    return Moe(
        num_experts=hf.int_("moe_num_experts", 4),
        top_k=hf.int_("moe_top_k", 1),
        width=hf.int_("ffn_hidden_size", 3584),
        activation="silu" if activation is None else activation.choice("name", ACTIVATIONS, "silu"),
        normalize=power is not None,
    )


_LAYER = "transformer.blocks.{layer}"
_MLP, _OURS = f"{_LAYER}.ffn.experts.mlp", "layers.{layer}.feed_forward"
_EXPERT = f"{_OURS}.experts.{{expert}}"

ARCHITECTURES = {
    "DbrxForCausalLM": Architecture(
        dbrx,
        WeightMap(
            rules=(
                Rule("transformer.wte.weight", "embedding.weight"),
                *ours(
                    f"{_LAYER}.norm_attn_norm",
                    ("norm_1", "norm_before_mixer"),
                    ("norm_2", "norm_before_feed_forward"),
                    ("attn.out_proj", "mixer.out"),
                ),
                *joined_heads(f"{_LAYER}.norm_attn_norm.attn.Wqkv"),
                Rule(f"{_LAYER}.ffn.router.layer.weight", f"{_OURS}.router.weight"),
                Rule(f"{_MLP}.w1", f"{_EXPERT}.gate_up.weight", parts=(0,), flat=True),
                Rule(f"{_MLP}.v1", f"{_EXPERT}.gate_up.weight", parts=(1,), flat=True),
                Rule(f"{_MLP}.w2", f"{_EXPERT}.down.weight", transpose=True, flat=True),
                Rule("transformer.norm_f.weight", "final_norm.weight"),
                Rule("lm_head.weight", "head.weight"),
            ),
        ),
    )
}
