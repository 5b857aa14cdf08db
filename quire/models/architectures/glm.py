"""GLM-4: neighbours of half a head turn in pairs, gate and up in one tensor; from 0414 on norms around each part.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, plain, with_placement
from quire.models.hf_parts import demand
from quire.models.hf_text import text_alone
from quire.models.name_parts import (
    GATE_UP_RULE,
    LAYER,
    MEGATRON_PARTS,
    OURS,
    joined_heads,
    nested,
    ours,
    pair,
)
from quire.models.names import LLAMA_NAMES, Rule, WeightMap
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Rope


def glm(hf: HfConfig, *, head_dim: int | None = 128) -> DecoderSpec:
    """`GlmForCausalLM`; defaults as in GlmConfig. Source: arXiv 2406.12793."""
    mixer = attention(
        hf,
        bias=None,
        kv_heads=2,
        head_dim=head_dim,
        part=("partial_rotary_factor", 0.5),
        interleaved=True,
        qkv_bias=hf.bool_("attention_bias", True),
    )
    return plain(hf, mixer, dense(hf), eps=1.5625e-7, max_len=131_072)


def glm4(hf: HfConfig) -> DecoderSpec:
    """`Glm4ForCausalLM`."""
    return with_placement(glm(hf), "sandwich")


def glm4v(hf: HfConfig) -> DecoderSpec:
    """The text of `Glm4vForConditionalGeneration`: as GLM-4 of 0414, with heads that share the width."""
    return with_placement(glm(hf, head_dim=None), "sandwich")


def chatglm(hf: HfConfig) -> DecoderSpec:
    """`ChatGLMModel` (ChatGLM 2 and 3, GLM-4 in its first form). Source: arXiv 2406.12793."""
    demand(hf, rmsnorm=True, post_layer_norm=True, add_bias_linear=False)
    demand(hf, apply_residual_connection_post_layernorm=False)
    # Where the reference rounds, what it fuses, and prefixes that are not of the model.
    hf.skip("apply_query_key_layer_scaling", "attention_softmax_in_fp32", "bias_dropout_fusion")
    hf.skip(
        "fp32_residual_connection", "attn_implementation", "classifier_dropout", "original_rope"
    )
    hf.skip("pre_seq_len", "prefix_projection", "quantization_bit", "interleaved_qkv", "vocab_size")
    hf.skip("num_hidden_layers")  # beside num_layers
    width, heads = hf.int_("hidden_size"), hf.int_("num_attention_heads")
    size = hf.int_("kv_channels", width // heads)
    groups = hf.int_("multi_query_group_num", 1)
    mixer = Attention(
        num_heads=heads,
        num_kv_heads=groups if hf.bool_("multi_query_attention", False) else heads,
        head_size=size,
        rope=Rope(dim=size // 2, theta=10_000.0 * hf.positive("rope_ratio", 1.0), interleaved=True),
        qkv_bias=hf.bool_("add_qkv_bias", False),
    )
    layer = LayerSpec(
        mixer=mixer,
        feed_forward=Dense(width=hf.int_("ffn_hidden_size")),
        norm_eps=hf.positive("layernorm_epsilon", 1e-5),
    )
    return decoder(
        hf,
        [layer] * hf.int_("num_layers", 28),
        vocab_size=hf.int_("padded_vocab_size"),
        max_position_embeddings=hf.int_("seq_length", 2048),
    )


GLM_NAMES = LLAMA_NAMES.without(f"{OURS}.feed_forward.gate_up").with_rules(GATE_UP_RULE)
GLM4_NAMES = GLM_NAMES.with_rules(
    Rule(f"{LAYER}.post_self_attn_layernorm.weight", f"{OURS}.norm_after_mixer.weight"),
    Rule(f"{LAYER}.post_mlp_layernorm.weight", f"{OURS}.norm_after_feed_forward.weight"),
)

_BLOCK = "transformer.encoder.layers.{layer}"

CHATGLM_NAMES = WeightMap(
    rules=(
        Rule("transformer.embedding.word_embeddings.weight", "embedding.weight"),
        *joined_heads(f"{_BLOCK}.self_attention.query_key_value"),
        *ours(
            _BLOCK,
            *MEGATRON_PARTS,
            ("self_attention.dense", "mixer.out"),
        ),
        Rule(f"{_BLOCK}.mlp.dense_h_to_4h.weight", f"{OURS}.feed_forward.gate_up.weight", (0, 1)),
        *pair("transformer.encoder.final_layernorm", "final_norm"),
        Rule("transformer.output_layer.weight", "head.weight"),
    ),
    ignored=("transformer.rotary_pos_emb.inv_freq",),
    ignored_if_tied=("transformer.output_layer.weight",),
)

ARCHITECTURES = {
    "ChatGLMForConditionalGeneration": Architecture(chatglm, CHATGLM_NAMES),
    "GlmForCausalLM": Architecture(glm, GLM_NAMES),
    "Glm4ForCausalLM": Architecture(glm4, GLM4_NAMES),
    "Glm4vForConditionalGeneration": Architecture(text_alone(glm4v), nested(GLM4_NAMES, "visual.")),
}
