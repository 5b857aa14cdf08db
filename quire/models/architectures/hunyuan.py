"""HunYuan: a norm over each head of q and k after RoPE, whose base grows by a fixed exponent.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense
from quire.models.hf_parts import default_head_size, rope
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import Attention, DecoderSpec, LayerSpec, Rope


def hunyuan_dense(hf: HfConfig) -> DecoderSpec:
    """`HunYuanDenseV1ForCausalLM`; defaults as in HunYuanDenseV1Config."""
    return decoder(
        hf,
        LayerSpec(
            mixer=hunyuan_attention(hf),
            feed_forward=dense(hf),
            norm_eps=hf.positive("rms_norm_eps", 1e-5),
        ),
    )


def hunyuan_attention(hf: HfConfig) -> Attention:
    """The mixer of every layer."""
    # Names of special tokens, and switches that published files carry for other code of theirs.
    hf.skip("eod_token_id", "sep_token_id", "text_start_id", "text_end_id", "im_start_id")
    hf.skip("im_end_id", "im_newline_id", "org_vocab_size", "mask_init_id", "attention_head_dim")
    if not hf.bool_("use_qk_norm", True):
        raise hf.refuse("use_qk_norm", "this architecture has norms of q and k")
    return attention(
        hf,
        rope=_rope(hf),
        qk_norm="per_head",
        norm_eps=hf.positive("rms_norm_eps", 1e-5),
        norm_after_rope=True,
    )


def _rope(hf: HfConfig) -> Rope:
    """Scaling of the type "dynamic" with `alpha` is a larger base for every length."""
    head_size = hf.optional_int("head_dim") or default_head_size(hf)
    section = hf.section("rope_scaling" if hf.has("rope_scaling") else "rope_parameters")
    if section is None or not section.has("alpha"):
        return rope(hf, head_size=head_size)
    section.skip("type", "rope_type", "factor", "beta_fast", "beta_slow", "mscale")
    section.skip("mscale_all_dim")
    base = section.positive("rope_theta", hf.positive("rope_theta", 10_000.0))
    growth: float = section.positive("alpha") ** (head_size / (head_size - 2))
    return Rope(dim=head_size, theta=base * growth)


_LAYER, _OURS = "model.layers.{layer}", "layers.{layer}"

HUNYUAN_NAMES = LLAMA_NAMES.with_rules(
    Rule(f"{_LAYER}.self_attn.query_layernorm.weight", f"{_OURS}.mixer.q_norm.weight"),
    Rule(f"{_LAYER}.self_attn.key_layernorm.weight", f"{_OURS}.mixer.k_norm.weight"),
)

ARCHITECTURES = {"HunYuanDenseV1ForCausalLM": Architecture(hunyuan_dense, HUNYUAN_NAMES)}
