"""Cohere (Command R and A, Aya): both parts of a layer read one LayerNorm, neighbours turn in pairs.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, with_attention
from quire.models.hf_parts import demand, windows
from quire.models.names import LLAMA_NAMES, QK_NORM_RULES, Rule
from quire.models.spec import Attention, DecoderSpec, LayerSpec


def cohere(hf: HfConfig) -> DecoderSpec:
    """`CohereForCausalLM`; defaults as in CohereConfig."""
    eps = hf.positive("layer_norm_eps", 1e-5)
    has_qk_norm = hf.bool_("use_qk_norm", False)
    mixer = attention(
        hf,
        theta=("rope_theta", 500_000.0),
        interleaved=True,
        qk_norm="layer_per_head" if has_qk_norm else "none",
        norm_eps=eps if has_qk_norm else Attention.norm_eps,
    )
    layer = LayerSpec(
        mixer=mixer,
        feed_forward=dense(hf),
        placement="parallel_shared",
        norm="layer_unbiased",
        norm_eps=eps,
    )
    max_len = hf.int_("max_position_embeddings", 8192)
    return decoder(
        hf,
        layer,
        tie=True,
        # Command R states 8,192 positions and beside it the length that it was trained for.
        max_position_embeddings=hf.optional_int("model_max_length") or max_len,
        logit_scale=hf.positive("logit_scale", 0.0625),
    )


def cohere2(hf: HfConfig) -> DecoderSpec:
    """`Cohere2ForCausalLM`: windows with positions, and every fourth layer without either."""
    # How published files say the same once more.
    hf.skip("layer_switch", "order_of_interleaved_layers", "position_embedding_type", "rotary_pct")
    hf.skip("use_embedding_sharing", "use_gated_activation", "use_parallel_block")
    hf.skip("use_parallel_embedding")
    demand(hf, "this architecture has no norms of q and k", use_qk_norm=False)
    every = hf.int_("sliding_window_pattern", 4)
    found = windows(hf, lambda index: (index + 1) % every != 0)

    def changed(index: int, mixer: Attention) -> Attention:
        slides, window = found[index]
        return replace(mixer, window=window, rope=mixer.rope if slides else None)

    return with_attention(cohere(hf), changed)


COHERE_NAMES = LLAMA_NAMES.with_rules(
    Rule("model.layers.{layer}.input_layernorm.weight", "layers.{layer}.norm_before_parts.weight"),
    *QK_NORM_RULES,
)

ARCHITECTURES = {
    "CohereForCausalLM": Architecture(cohere, COHERE_NAMES),
    "Cohere2ForCausalLM": Architecture(cohere2, COHERE_NAMES),
}
