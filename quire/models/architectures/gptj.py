"""GPT-J, CodeGen and GPT-Neo: GPT-2's blocks with neighbours turned in pairs, or with windows.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder, shared_width, ungated
from quire.models.name_parts import (
    GPT_LAYER,
    GPT_PARTS,
    joined_heads,
    ours,
    separate_heads,
    transformer_map,
)
from quire.models.names import Rule
from quire.models.spec import DecoderSpec, LayerSpec, Rope

_ELSEWHERE = (
    "n_ctx",
    "rotary",
    "scale_attn_weights",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "task_specific_params",
)
"""Repeated sizes, switches that the code does not read, and heads for other tasks."""


def gptj(hf: HfConfig) -> DecoderSpec:
    """`GPTJForCausalLM` and `CodeGenForCausalLM`: both parts of a layer read one norm; a bias of the head.

    Defaults as in GPTJConfig.
    """
    hf.skip(*_ELSEWHERE)
    width, heads = hf.int_("n_embd", 4096), hf.int_("n_head", 16)
    turned = hf.optional_int("rotary_dim", 64) or width // heads
    layer = LayerSpec(
        mixer=shared_width(
            hf, width, heads, keys=("n_embd", "n_head"), rope=Rope(dim=turned, interleaved=True)
        ),
        feed_forward=ungated(hf, hf.optional_int("n_inner") or 4 * width, "gelu_new"),
        placement="parallel_shared",
        norm="layer",
        norm_eps=hf.positive("layer_norm_epsilon", 1e-5),
    )
    return decoder(
        hf,
        [layer] * hf.int_("n_layer", 28),
        vocab_size=hf.int_("vocab_size", 50_400),
        hidden_size=width,
        max_position_embeddings=hf.int_("n_positions", 2048),
        head_bias=True,
    )


def gpt_neo(hf: HfConfig) -> DecoderSpec:
    """`GPTNeoForCausalLM`: scores are not divided; every second layer has a window."""
    hf.skip(*_ELSEWHERE)
    hf.skip("resid_dropout", "embed_dropout", "classifier_dropout", "attention_layers")
    width, heads = hf.int_("hidden_size", 2048), hf.int_("num_heads", 16)
    plain = shared_width(
        hf, width, heads, keys=("hidden_size", "num_heads"), rope=None, scale=1.0, out_bias=True
    )
    part = ungated(hf, hf.optional_int("intermediate_size") or 4 * width, "gelu_new")
    eps, window = hf.positive("layer_norm_epsilon", 1e-5), hf.int_("window_size", 256)
    layers = [
        LayerSpec(
            mixer=replace(plain, window=window if slides else None),
            feed_forward=part,
            norm="layer",
            norm_eps=eps,
        )
        for slides in _slides(hf)
    ]
    vocab_size = hf.int_("vocab_size", 50_257)
    return decoder(hf, layers, tie=True, learned=True, vocab_size=vocab_size, hidden_size=width)


def _slides(hf: HfConfig) -> list[bool]:
    """Which layers have a window, as `attention_types` says: names of kinds and how often they recur."""
    kinds = {"global": False, "local": True}
    found: list[bool] = []
    for names, count in hf.pairs("attention_types", [[["global", "local"], 12]]):
        if (
            not isinstance(names, list)
            or not set(names) <= set(kinds)
            or not isinstance(count, int)
        ):
            raise hf.refuse("attention_types", "it must pair lists of global and local with counts")
        found += [kinds[name] for name in names] * count
    if len(found) != hf.int_("num_layers", 24):
        raise hf.refuse("attention_types", "it must name num_layers layers")
    return found


GPTJ_NAMES = transformer_map(
    Rule("lm_head.bias", "head.bias"),
    *separate_heads(GPT_LAYER, "attn.q_proj", "attn.k_proj", "attn.v_proj"),
    *ours(
        GPT_LAYER,
        ("ln_1", "norm_before_parts"),
        ("attn.out_proj", "mixer.out"),
        ("mlp.fc_in", "feed_forward.up"),
        ("mlp.fc_out", "feed_forward.down"),
    ),
    ignored=(
        f"{GPT_LAYER}.attn.bias",
        f"{GPT_LAYER}.attn.masked_bias",
        f"{GPT_LAYER}.attn.causal_mask",
    ),
)
"""The masks of old files are left unread."""

CODEGEN_NAMES = GPTJ_NAMES.without("layers.{layer}.mixer.qkv").with_rules(
    *joined_heads(f"{GPT_LAYER}.attn.qkv_proj", fold="gather_quarters")
)

GPT_NEO_NAMES = transformer_map(
    Rule("transformer.wpe.weight", "positions.weight"),
    *separate_heads(GPT_LAYER, *(f"attn.attention.{name}_proj" for name in "qkv")),
    *ours(
        GPT_LAYER,
        *GPT_PARTS,
        ("attn.attention.out_proj", "mixer.out"),
        ("mlp.c_fc", "feed_forward.up"),
    ),
    ignored=(f"{GPT_LAYER}.attn.attention.bias", f"{GPT_LAYER}.attn.attention.masked_bias"),
)

ARCHITECTURES = {
    "GPTJForCausalLM": Architecture(gptj, GPTJ_NAMES),
    "CodeGenForCausalLM": Architecture(gptj, CODEGEN_NAMES),
    "GPTNeoForCausalLM": Architecture(gpt_neo, GPT_NEO_NAMES),
}
