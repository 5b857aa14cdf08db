"""ModernBERT's layers as a decoder that writes: Ettin.

The encoder is in `architectures.bert`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation
from quire.models.hf_modern import MODERN_RULES, modern_layers
from quire.models.name_parts import LAYER, pair, separate_heads
from quire.models.names import Rule, WeightMap
from quire.models.spec import DecoderSpec


def modern_decoder(hf: HfConfig) -> DecoderSpec:
    """`ModernBertDecoderForCausalLM`: a product and a norm before the output matrix. Source: arXiv 2507.11412.

    Its code halves `local_attention` for tokens looked back, unless `sliding_window` is stated too.
    """
    hf.skip("masked_prediction", "is_causal", "unk_token", "bos_token", "eos_token", "pad_token")
    hf.skip("cls_token", "sep_token", "mask_token", "classifier_pooling")
    window = hf.int_("sliding_window", hf.int_("local_attention", 128) // 2)
    return replace(
        modern_layers(hf, window=window, both_ways=False),
        tie_head=hf.bool_("tie_word_embeddings", True),
        head_bias=hf.bool_("decoder_bias", True),
        head_act=activation(hf, "gelu", key="classifier_activation"),
        head_act_bias=hf.bool_("classifier_bias", False),
    )


NAMES = WeightMap(
    (
        *MODERN_RULES,
        *separate_heads(LAYER, *(f"attn.{name}_proj" for name in "qkv")),
        *pair("lm_head.dense", "before_head"),
        *pair("lm_head.norm", "before_head.norm"),
        Rule("decoder.weight", "head.weight"),
        Rule("decoder.bias", "head.bias"),
    ),
    ignored_if_tied=("decoder.weight",),
    optional_prefix="model.",
)

ARCHITECTURES = {"ModernBertDecoderForCausalLM": Architecture(modern_decoder, NAMES)}
