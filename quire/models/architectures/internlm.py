"""InternLM, InternLM 2 and Baichuan: Llama's layer with q, k and v in one tensor, or with biases.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain
from quire.models.name_parts import LAYER, gate_and_up, joined_heads, ours
from quire.models.names import LLAMA_NAMES, Rule, WeightMap
from quire.models.spec import DecoderSpec, Rope


def internlm(hf: HfConfig) -> DecoderSpec:
    """`InternLMForCausalLM`: `bias` is for q, k, v and the output."""
    bias = hf.bool_("bias", True)
    base, section = 10_000.0, hf.section("rotary")
    if section is not None:
        # Both stand for the trained length as it is; "dynamic" would stretch it by a factor of one.
        section.choice("type", {"origin": None, "dynamic": None}, "origin")
        base = section.positive("base", base)
    one = attention(hf, bias=None, rope=None, qkv_bias=bias, out_bias=bias)
    return plain(hf, replace(one, rope=Rope(dim=one.head_size, theta=base)), dense(hf))


def internlm2(hf: HfConfig) -> DecoderSpec:
    """`InternLM2ForCausalLM`, and the text of `InternLM2VEForCausalLM`. Source: arXiv 2403.17297."""
    bias = hf.bool_("bias", False)
    hf.skip("attn_implementation")
    return plain(hf, attention(hf, bias=None, qkv_bias=bias, out_bias=bias), dense(hf))


def baichuan(hf: HfConfig) -> DecoderSpec:
    """`BaiChuanForCausalLM` and `BaichuanForCausalLM` with positions that turn, which are those of 7B."""
    if not hf.has("max_position_embeddings"):
        raise hf.refuse(
            "max_position_embeddings",
            "models of 13B, whose scores fall with the distance, are not known",
        )
    # What training asks for; a length again.
    hf.skip("z_loss_weight", "model_max_length", "_from_model_config")
    return plain(hf, attention(hf, bias=None), dense(hf), max_len=4096)


INTERNLM2_NAMES = WeightMap(
    rules=(
        Rule("model.tok_embeddings.weight", "embedding.weight"),
        *joined_heads(f"{LAYER}.attention.wqkv", fold="gather_heads"),
        *ours(
            LAYER,
            ("attention_norm", "norm_before_mixer"),
            ("attention.wo", "mixer.out"),
            ("ffn_norm", "norm_before_feed_forward"),
            ("feed_forward.w2", "feed_forward.down"),
        ),
        *gate_and_up(f"{LAYER}.feed_forward", "w1", "w3"),
        Rule("model.norm.weight", "final_norm.weight"),
        Rule("output.weight", "head.weight"),
    ),
    ignored=(f"{LAYER}.attention.rotary_emb.inv_freq",),
    ignored_if_tied=("output.weight",),
)

INTERNLM2VE_NAMES = replace(
    INTERNLM2_NAMES,
    ignored=(
        *INTERNLM2_NAMES.ignored,
        *(f"{LAYER}.feed_forward_ve.{name}.weight" for name in ("w1", "w2", "w3")),
    ),
)
"""Tokens of images pass a part of their own, which tokens of text do not."""

BAICHUAN_NAMES = LLAMA_NAMES.without("layers.{layer}.mixer.qkv").with_rules(
    *joined_heads(f"{LAYER}.self_attn.W_pack")
)

ARCHITECTURES = {
    "InternLMForCausalLM": Architecture(internlm, LLAMA_NAMES),
    "InternLM2ForCausalLM": Architecture(internlm2, INTERNLM2_NAMES),
    "InternLM2VEForCausalLM": Architecture(internlm2, INTERNLM2VE_NAMES),
    "BaiChuanForCausalLM": Architecture(baichuan, BAICHUAN_NAMES),
    "BaichuanForCausalLM": Architecture(
        baichuan, BAICHUAN_NAMES.folded("unit_rows", "lm_head.weight")
    ),
}
"""The second Baichuan divides each row of the output matrix by its length."""
