"""Gemma 3n and 4: layers that share keys and values, and get numbers of their own of every token.

Gemma 3n has several residual streams too, and gates of which the largest count; Gemma 4 may have experts beside
a dense part. Spellings shared with earlier ones are in `models.hf_gemma`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense
from quire.models.hf_gemma import around, gemma_activation, two_ropes
from quire.models.hf_parts import rope, sliding_layers
from quire.models.hf_text import text_alone
from quire.models.name_parts import LAYER, OURS, nested
from quire.models.names import (
    LLAMA_NAMES,
    QK_NORM_RULES,
    SANDWICH_RULES,
    Rule,
    WeightMap,
    shared_rules,
)
from quire.models.spec import (
    Attention,
    DecoderSpec,
    FeedForward,
    LayerInputs,
    LayerSpec,
    Moe,
    ProportionalScaling,
    Rope,
    Streams,
)


def gemma3n(hf: HfConfig) -> DecoderSpec:
    """`Gemma3nForCausalLM`; defaults as in Gemma3nTextConfig. Source: ai.google.dev/gemma/docs/gemma-3n."""
    hf.skip(
        "query_pre_attn_scalar", "altup_coef_clip", "altup_lr_multiplier"
    )  # what training needs
    count, eps = hf.int_("num_hidden_layers", 35), hf.positive("rms_norm_eps", 1e-6)
    slides = sliding_layers(hf, lambda index: (index + 1) % 5 != 0)
    ropes = two_ropes(hf, hf.int_("head_dim", 256))[::-1]
    heads = [attention(hf, heads=8, kv_heads=2, head_dim=256, rope=turned) for turned in ropes]
    sparse = hf.for_layers("activation_sparsity_pattern", count, None)
    sparse = sparse or [0.95 * (count > 10 > index) for index in range(count)]
    widths = hf.for_layers("intermediate_size", count, 16_384)
    if widths is None or not min(widths):
        raise hf.refuse("intermediate_size", "it must be above 0")
    if max(sparse) >= 1:
        raise hf.refuse("activation_sparsity_pattern", "it must be below 1")
    act = gemma_activation(hf)
    layers = [
        LayerSpec(
            mixer=mixer,
            feed_forward=dense(hf, width=int(width), activation=act, sparsity=part),
            placement="altup",
            norm_eps=eps,
            input_act=act,
        )
        for mixer, width, part in zip(_mixers(hf, heads, slides, 15), widths, sparse, strict=True)
    ]
    streams = Streams(
        count=hf.int_("altup_num_inputs", 4, minimum=2),
        active=hf.int_("altup_active_idx", 0, minimum=0),
        rank=hf.int_("laurel_rank", 64),
        scaled=hf.bool_("altup_correct_scale", True),
    )
    if streams.active >= streams.count:
        raise hf.refuse("altup_active_idx", f"it must be below altup_num_inputs {streams.count}")
    return _decoder(hf, layers, 2048, 262_400, 32_768, cap=30.0, streams=streams)


def gemma4(hf: HfConfig) -> DecoderSpec:
    """`Gemma4ForCausalLM`; defaults as in Gemma4TextConfig. Source: ai.google.dev/gemma/docs/core."""
    eps = hf.positive("rms_norm_eps", 1e-6)
    if hf.has("use_bidirectional_attention"):
        hf.choice("use_bidirectional_attention", {"vision": None})  # of images, which are not read
    slides = sliding_layers(hf, lambda index: (index + 1) % 6 != 0)
    slides[-1] = False
    both = hf.bool_("attention_k_eq_v", False)
    size, kv_heads = _larger_heads(hf, slides, both)
    local = attention(hf, heads=8, kv_heads=4, head_dim=256, rope=_rope4(hf, 256, sliding=True))
    everywhere = replace(
        local,
        head_size=size,
        num_kv_heads=kv_heads or local.num_kv_heads,
        rope=_rope4(hf, size, sliding=False),
        values="normed_keys" if both else "normed",
    )
    mixers = _mixers(hf, [everywhere, local], slides, 0)
    act, inputs = gemma_activation(hf), hf.int_("hidden_size_per_layer_input", 256, minimum=0)
    width, wider = hf.int_("intermediate_size", 9216), hf.bool_("use_double_wide_mlp", False)
    experts = _experts4(hf, eps) if hf.bool_("enable_moe_block", False) else None
    hf.skip("num_experts", "top_k_experts", "moe_intermediate_size")
    layers = []
    for mixer in mixers:
        each = 2 * width if wider and mixer.shares is not None else width
        part: FeedForward = dense(hf, width=each, activation=act)
        if experts is not None:
            part = replace(experts, activation=act, shared_width=each)
        layers.append(
            LayerSpec(
                mixer=mixer,
                feed_forward=part,
                placement="sandwich" if experts is None else "sandwich_open",
                norm_eps=eps,
                input_act=act if inputs else None,
                scaled=True,
            )
        )
    return _decoder(hf, layers, 2304, 262_144, 131_072, cap=None)


def _larger_heads(hf: HfConfig, slides: list[bool], both: bool) -> tuple[int, int | None]:
    """The size of the heads of layers without a window, and how many of k they have if that is their own."""
    size = hf.optional_int("global_head_dim", 512) or 512
    kv_heads = hf.optional_int("num_global_key_value_heads") if both else None
    hf.skip("num_global_key_value_heads")
    each = hf.section("per_layer_config")  # what newer tools write instead
    if each is None:
        return size, kv_heads
    everywhere = {number for number, slid in enumerate(slides) if not slid}
    names = [name for name in each.names() if name.isdecimal() and int(name) in everywhere]
    sections = [each.section(name) for name in names]
    general = hf.int_("head_dim", 256)
    found = {
        (one.int_("head_dim", general), one.optional_int("num_key_value_heads"))
        for one in sections
        if one is not None
    }
    if len(names) < len(everywhere):
        found.add((general, None))
    if len(found) != 1:
        raise hf.refuse("per_layer_config", "layers without a window must have heads of one size")
    return found.pop()


def _experts4(hf: HfConfig, eps: float) -> Moe:
    return Moe(
        num_experts=hf.int_("num_experts"),
        top_k=hf.int_("top_k_experts"),
        width=hf.int_("moe_intermediate_size"),
        norm_eps=eps,
    )


def _rope4(hf: HfConfig, size: int, *, sliding: bool) -> Rope:
    """Positions of one kind of layer; without `rope_parameters` a quarter of the pairs of the larger heads turns."""
    if hf.has("rope_parameters"):
        return rope(hf, head_size=hf.int_("head_dim", size) if sliding else size, sliding=sliding)
    if sliding:
        return Rope(dim=hf.int_("head_dim", size))
    return Rope(dim=size, theta=1_000_000.0, scaling=ProportionalScaling(turning=size // 8))


def _mixers(
    hf: HfConfig, heads: list[Attention], slides: list[bool], shared: int
) -> list[Attention]:
    """The mixer of each layer: of `heads` the second with a window, else the first.

    The last `num_kv_shared_layers` look at what the last layer of their kind before them cached.
    """
    window, eps = hf.int_("sliding_window", 512), hf.positive("rms_norm_eps", 1e-6)
    first = len(slides) - hf.int_("num_kv_shared_layers", shared, minimum=0)
    last = {kind: number for number, kind in enumerate(slides[: max(first, 0)])}
    if set(slides) - set(last):
        raise hf.refuse("num_kv_shared_layers", "a layer of each kind must have keys of its own")
    mixers = []
    for number, kind in enumerate(slides):
        mixer = replace(
            heads[kind],
            scale=1.0,
            qk_norm="per_head",
            norm_eps=eps,
            window=window if kind else None,
        )
        if number >= first:
            mixer = replace(mixer, shares=last[kind], values="own")
        elif mixer.values == "own":
            mixer = replace(mixer, values="normed")
        mixers.append(mixer)
    return mixers


def _decoder(
    hf: HfConfig,
    layers: list[LayerSpec],
    size: int,
    vocab_size: int,
    max_len: int,
    *,
    cap: float | None,
    streams: Streams | None = None,
) -> DecoderSpec:
    inputs = hf.int_("hidden_size_per_layer_input", 256, minimum=0)
    rows = hf.int_("vocab_size_per_layer_input", 262_144)
    return decoder(
        hf,
        layers,
        vocab_size=hf.int_("vocab_size", vocab_size),
        max_position_embeddings=hf.int_("max_position_embeddings", max_len),
        logit_softcap=hf.optional_positive("final_logit_softcapping", cap) or 0.0,
        layer_inputs=LayerInputs(vocab_size=rows, size=inputs) if inputs else None,
        streams=streams,
        **around(hf, size),
    )


_SHARED = ("k_proj", "v_proj", "k_norm", "v_norm")
EDGE_NAMES = LLAMA_NAMES.with_rules(
    *SANDWICH_RULES,
    *QK_NORM_RULES,
    Rule("model.embed_tokens_per_layer.weight", "layer_inputs.table.weight"),
    Rule("model.per_layer_model_projection.weight", "layer_inputs.product.weight"),
    Rule("model.per_layer_projection_norm.weight", "layer_inputs.norm.weight"),
    Rule(f"{LAYER}.per_layer_input_gate.weight", f"{OURS}.input.gate.weight"),
    Rule(f"{LAYER}.per_layer_projection.weight", f"{OURS}.input.up.weight"),
    Rule(f"{LAYER}.post_per_layer_input_norm.weight", f"{OURS}.input.norm.weight"),
)
EDGE_NAMES = replace(
    EDGE_NAMES,
    ignored=(
        *EDGE_NAMES.ignored,
        *(f"{LAYER}.self_attn.{name}.weight" for name in _SHARED),
    ),
)
"""What the last layers would need if they did not share is in some files."""

_MOST_STREAMS, _SCALE = 8, f"{LAYER}.altup.correct_output_scale"
GEMMA3N_NAMES = EDGE_NAMES.with_rules(
    *(
        Rule(f"model.altup_{theirs}.{number}.weight", f"streams.{end}.{number}.weight")
        for theirs, end in (("projections", "open"), ("unembed_projections", "close"))
        for number in range(_MOST_STREAMS - 1)
    ),
    *(
        Rule(f"{LAYER}.altup.{theirs}.weight", f"{OURS}.altup.{part}.weight")
        for theirs, part in (
            ("correction_coefs", "correct"),
            ("prediction_coefs", "predict"),
            ("modality_router", "router"),
        )
    ),
    Rule(_SCALE, f"{OURS}.altup.scale"),
    Rule(
        f"{LAYER}.altup.router_norm.weight", f"{OURS}.altup.router_norm.weight", fold="over_width"
    ),
    Rule(f"{LAYER}.laurel.linear_left.weight", f"{OURS}.laurel.down.weight"),
    Rule(f"{LAYER}.laurel.linear_right.weight", f"{OURS}.laurel.up.weight"),
    Rule(f"{LAYER}.laurel.post_laurel_norm.weight", f"{OURS}.laurel.norm.weight"),
)

GEMMA3N_NAMES = replace(GEMMA3N_NAMES, ignored=(*GEMMA3N_NAMES.ignored, _SCALE))
_PART = f"{OURS}.feed_forward"
GEMMA4_NAMES = WeightMap(
    rules=(
        *EDGE_NAMES.rules,
        *shared_rules("mlp"),
        Rule(f"{LAYER}.layer_scalar", f"{OURS}.factor"),
        Rule(f"{LAYER}.router.proj.weight", f"{_PART}.router.weight"),
        Rule(f"{LAYER}.router.scale", f"{_PART}.router_norm.weight", fold="over_root"),
        Rule(f"{LAYER}.router.per_expert_scale", f"{_PART}.factors"),
        Rule(f"{LAYER}.experts.gate_up_proj", f"{_PART}.experts.{{expert}}.gate_up.weight", (0, 1)),
        Rule(f"{LAYER}.experts.down_proj", f"{_PART}.experts.{{expert}}.down.weight"),
        Rule(f"{LAYER}.pre_feedforward_layernorm.weight", f"{_PART}.norm_before_shared.weight"),
        Rule(f"{LAYER}.post_feedforward_layernorm_1.weight", f"{_PART}.norm_after_shared.weight"),
        Rule(f"{LAYER}.pre_feedforward_layernorm_2.weight", f"{_PART}.norm_before_experts.weight"),
        Rule(f"{LAYER}.post_feedforward_layernorm_2.weight", f"{_PART}.norm_after_experts.weight"),
    ),
    ignored=EDGE_NAMES.ignored,
    ignored_if_tied=EDGE_NAMES.ignored_if_tied,
)

_OTHERS = ("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.")


ARCHITECTURES = {
    "Gemma3nForCausalLM": Architecture(gemma3n, GEMMA3N_NAMES),
    "Gemma4ForCausalLM": Architecture(gemma4, GEMMA4_NAMES),
    "Gemma3nForConditionalGeneration": Architecture(
        text_alone(gemma3n), nested(GEMMA3N_NAMES, *_OTHERS)
    ),
    "Gemma4ForConditionalGeneration": Architecture(
        text_alone(gemma4), nested(GEMMA4_NAMES, *_OTHERS)
    ),
}
