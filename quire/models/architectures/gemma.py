"""Gemma: scaled embeddings; from 2 on norms around each part, windows; 2 with soft caps, 3 without.

Spellings shared with other families are in `models.hf_parts`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain, with_placement
from quire.models.hf_gemma import around, gemma_activation, two_ropes
from quire.models.hf_parts import ACTIVATIONS, rope, windows
from quire.models.hf_text import llava_names, text_alone
from quire.models.name_parts import LAYER
from quire.models.names import LLAMA_NAMES, QK_NORM_RULES, SANDWICH_RULES
from quire.models.spec import DecoderSpec


def gemma(hf: HfConfig) -> DecoderSpec:
    """`GemmaForCausalLM`; defaults as in GemmaConfig. Source: arXiv 2403.08295."""
    hf.skip("hidden_activation")  # Transformers reads hidden_act, whose "gelu" is a known slip here
    act = hf.choice("hidden_act", {**ACTIVATIONS, "gelu": "gelu_tanh"}, "gelu_pytorch_tanh")
    mixer = attention(hf, kv_heads=16, head_dim=256)
    return plain(hf, mixer, dense(hf, activation=act), **around(hf))


def gemma2(hf: HfConfig) -> DecoderSpec:
    """`Gemma2ForCausalLM`; defaults as in Gemma2Config. Source: arXiv 2408.00118."""
    # The window again; what older tools write beside hidden_activation, which Transformers reads.
    hf.skip("sliding_window_size", "hidden_act")
    mixers = [
        attention(
            hf,
            kv_heads=4,
            head_dim=256,
            rope=rope(hf, head_size=hf.int_("head_dim", 256), sliding=slides),
            scale=_scale(hf),
            window=window,
            softcap=hf.optional_positive("attn_logit_softcapping", 50.0) or 0.0,
        )
        for slides, window in windows(hf, lambda index: index % 2 == 0)
    ]
    cap = hf.optional_positive("final_logit_softcapping", 30.0) or 0.0
    part = dense(hf, activation=gemma_activation(hf))
    return plain(hf, mixers, part, placement="sandwich", logit_softcap=cap, **around(hf))


def gemma3(hf: HfConfig) -> DecoderSpec:
    """`Gemma3ForCausalLM`; defaults as in Gemma3TextConfig. Source: arXiv 2503.19786."""
    if hf.optional_positive("attn_logit_softcapping") is not None:
        raise hf.refuse("attn_logit_softcapping", "Gemma 3 does not cap scores")
    local, everywhere = two_ropes(hf, hf.int_("head_dim", 256))
    hf.skip("_sliding_window_pattern")  # a copy of the next that newer tools write
    pattern = hf.int_("sliding_window_pattern", 6)
    mixers = [
        attention(
            hf,
            heads=8,
            kv_heads=4,
            head_dim=256,
            rope=local if slides else everywhere,
            scale=_scale(hf),
            qk_norm="per_head",
            norm_eps=hf.positive("rms_norm_eps", 1e-6),
            window=window,
        )
        for slides, window in windows(hf, lambda index: (index + 1) % pattern != 0)
    ]
    max_len = hf.int_("max_position_embeddings", 131_072)
    spec = plain(
        hf,
        mixers,
        dense(hf, width=hf.int_("intermediate_size", 9216), activation=gemma_activation(hf)),
        placement="sandwich",
        vocab_size=hf.int_("vocab_size", 262_208),
        max_position_embeddings=max_len,
        logit_softcap=hf.optional_positive("final_logit_softcapping") or 0.0,
        **around(hf, 2304),
    )
    return replace(spec, max_len=max_len)  # already what linear scaling makes of it


def gemma3_uncapped(hf: HfConfig) -> DecoderSpec:
    """The text of `Gemma3ForConditionalGeneration`, which caps no logits whatever the file says."""
    return replace(gemma3(hf), logit_softcap=0.0)


def _scale(hf: HfConfig) -> float:
    scale: float = hf.positive("query_pre_attn_scalar", 256.0) ** -0.5
    return scale


def vaultgemma(hf: HfConfig) -> DecoderSpec:
    """`VaultGemmaForCausalLM`: Gemma 2 without the norms after the parts. Source: arXiv 2510.15001."""
    return with_placement(gemma2(hf), "pre")


GEMMA2_NAMES = LLAMA_NAMES.with_rules(*SANDWICH_RULES).folded(
    "add_one",
    f"{LAYER}.input_layernorm.weight",
    f"{LAYER}.post_attention_layernorm.weight",
    f"{LAYER}.pre_feedforward_layernorm.weight",
    f"{LAYER}.post_feedforward_layernorm.weight",
    "model.norm.weight",
)
"""Gemma's norms multiply by 1 + w."""

GEMMA_NAMES = LLAMA_NAMES.folded(
    "add_one",
    f"{LAYER}.input_layernorm.weight",
    f"{LAYER}.post_attention_layernorm.weight",
    "model.norm.weight",
)

VAULT_NAMES = GEMMA2_NAMES.without(
    "layers.{layer}.norm_after_mixer", "layers.{layer}.norm_after_feed_forward"
)

GEMMA3_NAMES = GEMMA2_NAMES.with_rules(*QK_NORM_RULES).folded(
    "add_one", f"{LAYER}.self_attn.q_norm.weight", f"{LAYER}.self_attn.k_norm.weight"
)

ARCHITECTURES = {
    "GemmaForCausalLM": Architecture(gemma, GEMMA_NAMES),
    "Gemma2ForCausalLM": Architecture(gemma2, GEMMA2_NAMES),
    "VaultGemmaForCausalLM": Architecture(vaultgemma, VAULT_NAMES),
    "Gemma3ForCausalLM": Architecture(gemma3, GEMMA3_NAMES),
    "Gemma3ForConditionalGeneration": Architecture(
        text_alone(gemma3_uncapped), llava_names(GEMMA3_NAMES)
    ),
}
