"""Models with Llama's names that differ from it in a point: positions, windows, biases, the activation.

SmolLM3, CWM, Seed-OSS, InternLM3, IQuest-Coder, Helium, Arcee, Apertus, openPangu Embedded and TeleChat 2.
"""

from __future__ import annotations

from dataclasses import replace
from math import ceil, log2

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense, head_share, plain, shared_width
from quire.models.hf_parts import demand, sliding_layers, turning_layers, windows
from quire.models.name_parts import LAYER, OURS, PLAIN_MLP_RULES, gate_and_up, ours, with_head
from quire.models.names import LLAMA_NAMES, QK_NORM_RULES, Rule
from quire.models.spec import DecoderSpec, LayerSpec, Llama3Scaling, Rope


def smollm3(hf: HfConfig) -> DecoderSpec:
    """`SmolLM3ForCausalLM`: some layers have no positions, by default every fourth."""
    hf.skip("is_llama_config", "max_window_layers")
    turns = turning_layers(hf, hf.int_("num_hidden_layers"))
    window = hf.optional_int("sliding_window")
    if not hf.bool_("use_sliding_window", False):
        window = None
    one = attention(hf, kv_heads=4, theta=("rope_theta", 2_000_000.0))
    slides = sliding_layers(hf, lambda index: window is not None and not turns[index])
    mixers = [
        replace(one, window=window if slide else None, rope=one.rope if turn else None)
        for slide, turn in zip(slides, turns, strict=True)
    ]
    return plain(hf, mixers, dense(hf, bias=hf.bool_("mlp_bias", False)), max_len=32_768, tie=True)


def pangu_embedded(hf: HfConfig) -> DecoderSpec:
    """`PanguEmbeddedForCausalLM` (openPangu 1B and 7B): `bias` is for q, k, v and output."""
    bias = hf.bool_("attention_bias", hf.bool_("bias", False))
    one = attention(hf, bias=None, qkv_bias=bias, out_bias=bias)
    return plain(hf, one, dense(hf, bias=hf.bool_("mlp_bias", False)), max_len=32_768, eps=1e-5)


def telechat2(hf: HfConfig) -> DecoderSpec:
    """`TeleChat2ForCausalLM`: k and v of a head in one tensor; biases of the output and of what leaves the parts.

    The base of positions grows with how much longer texts the model was trained for than at first, and again
    beyond those, where this ends. Source: `modeling_telechat2.py` of the published files.
    """
    hf.skip(*_TELECHAT_TRAINING)
    demand(hf, apply_residual_connection_post_layernorm=False, embed_layernorm=False, logn=False)
    heads = hf.int_("n_head")
    trained, first = hf.int_("training_seqlen", 8192), hf.int_("base_seqlen", 8192)
    size = head_share(hf, hf.int_("hidden_size"), heads, ("hidden_size", "n_head"))
    growth = max(2 ** ceil(log2(trained / first) + 1) - 1, 1)
    one = shared_width(
        hf,
        hf.int_("hidden_size"),
        heads,
        keys=("hidden_size", "n_head"),
        num_kv_heads=hf.optional_int("num_key_value_heads") or heads,
        rope=Rope(dim=size, theta=10_000.0 * growth ** (size / (size - 2))),
        out_bias=True,
    )
    width = hf.optional_int("ffn_hidden_size") or 4 * hf.int_("hidden_size")
    part = dense(hf, width=width, down_bias=True)
    eps = hf.positive("layer_norm_epsilon", 1e-5)
    layer = LayerSpec(mixer=one, feed_forward=part, norm_eps=eps)
    return decoder(hf, [layer] * hf.int_("n_layer"), max_position_embeddings=trained)


def cwm(hf: HfConfig) -> DecoderSpec:
    """`CwmForCausalLM`: windows in three of four layers. Source: arXiv 2510.02387."""
    if not hf.has("rope_scaling") and not hf.has("rope_parameters"):
        raise hf.refuse(
            "rope_scaling", "it must be stated; defaults of this model differ by version"
        )
    one = attention(hf, bias=None, kv_heads=8, head_dim=128, theta=("rope_theta", 1_000_000.0))
    found = windows(hf, lambda index: index % 4 != 0, 8192)
    mixers = [replace(one, window=window) for _, window in found]
    part = dense(hf, bias=hf.bool_("mlp_bias", False))
    return plain(hf, mixers, part, max_len=131_072, eps=1e-5)


def seed_oss(hf: HfConfig) -> DecoderSpec:
    """`SeedOssForCausalLM`: q, k and v have biases, the output as `attention_out_bias` says."""
    hf.skip("residual_dropout")
    one = attention(
        hf,
        bias=None,
        head_dim=128,
        qkv_bias=hf.bool_("attention_bias", True),
        out_bias=hf.bool_("attention_out_bias", False),
    )
    return plain(hf, one, dense(hf, bias=hf.bool_("mlp_bias", False)), max_len=524_288)


def internlm3(hf: HfConfig) -> DecoderSpec:
    """`InternLM3ForCausalLM`: `qkv_bias` is for q, k, v and output, `bias` for the feed-forward part."""
    bias = hf.bool_("attention_bias", hf.bool_("qkv_bias", False))
    one = attention(hf, bias=None, head_dim=128, qkv_bias=bias, out_bias=bias)
    part = dense(hf, bias=hf.bool_("mlp_bias", hf.bool_("bias", False)))
    return plain(hf, one, part, max_len=32_768, eps=1e-5)


def iquestcoder(hf: HfConfig) -> DecoderSpec:
    """`IQuestCoderForCausalLM`."""
    demand(hf, "this architecture has no windows", use_sliding_window=False)
    hf.skip("sliding_window", "max_window_layers")
    one = attention(hf, head_dim=128, kv_heads=8)
    return plain(hf, one, dense(hf, bias=hf.bool_("mlp_bias", False)), max_len=131_072, eps=1e-5)


def helium(hf: HfConfig) -> DecoderSpec:
    """`HeliumForCausalLM`: neighbours turn in pairs; the output never has a bias."""
    one = attention(
        hf,
        bias=None,
        head_dim=128,
        theta=("rope_theta", 100_000.0),
        interleaved=True,
        qkv_bias=hf.bool_("attention_bias", False),
    )
    part = dense(hf, bias=hf.bool_("mlp_bias", False))
    return plain(hf, one, part, max_len=4096, eps=1e-8)


def arcee(hf: HfConfig) -> DecoderSpec:
    """`ArceeForCausalLM`: a feed-forward part without gate, of squared ReLU."""
    part = dense(hf, default="relu2", gated=False, bias=hf.bool_("mlp_bias", False))
    return plain(hf, attention(hf), part, max_len=4096, eps=1e-5)


def apertus(hf: HfConfig) -> DecoderSpec:
    """`ApertusForCausalLM`: norms over each head, xIELU without gate. Source: arXiv 2509.14233."""
    hf.choice("hidden_act", {"xielu": None}, "xielu")
    for key, wanted in (("qk_norm", True), ("mlp_bias", False), ("post_norm", False)):
        if hf.bool_(key, wanted) != wanted:
            raise hf.refuse(key, "no checkpoint of this architecture has it so")
    mixer = attention(hf, theta=("rope_theta", 12_000_000.0), normed=1e-5)
    if not hf.has("rope_parameters") and not hf.has("rope_scaling"):
        growth = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
        scaling = Llama3Scaling(**growth, original_len=8192)
        mixer = replace(mixer, rope=Rope(dim=mixer.head_size, theta=12e6, scaling=scaling))
    part = dense(hf, activation="xielu", gated=False)
    return plain(hf, mixer, part, max_len=65_536, eps=1e-5)


_CURVE = (("alpha_p", "rise"), ("alpha_n", "fall"), ("beta", "slope"), ("eps", "least"))
APERTUS_NAMES = LLAMA_NAMES.without(
    "layers.{layer}.norm_before_mixer", "layers.{layer}.norm_before_feed_forward"
).with_rules(
    *PLAIN_MLP_RULES,
    *QK_NORM_RULES,
    *ours(
        LAYER,
        ("attention_layernorm", "norm_before_mixer"),
        ("feedforward_layernorm", "norm_before_feed_forward"),
    ),
    *(
        Rule(f"{LAYER}.mlp.act_fn.{theirs}", f"{OURS}.feed_forward.{name}")
        for theirs, name in _CURVE
    ),
)

_TELECHAT_TRAINING: tuple[str, ...] = (
    "attention_softmax_in_fp32",
    "bias_dropout_fusion",
    "masked_softmax_fusion",
)
_TELECHAT_TRAINING += ("flash_attn", "n_inner", "offset_alibi", "seq_length", "skip_bias_add")
_TELECHAT_TRAINING += ("skip_bias_add_qkv", "slow_but_exact", "unk_token_id", "use_RMSNorm")
_TELECHAT_LAYER = "transformer.h.{layer}"
TELECHAT_NAMES = with_head(
    Rule("transformer.word_embeddings.weight", "embedding.weight"),
    Rule(f"{_TELECHAT_LAYER}.self_attention.query.weight", f"{OURS}.mixer.qkv.weight"),
    Rule(
        f"{_TELECHAT_LAYER}.self_attention.key_value.weight",
        f"{OURS}.mixer.qkv.weight",
        parts=(1, 2),
        fold="gather_heads",
    ),
    *ours(
        _TELECHAT_LAYER,
        ("input_layernorm", "norm_before_mixer"),
        ("self_attention.dense", "mixer.out"),
        ("post_attention_layernorm", "norm_before_feed_forward"),
        ("mlp.down_proj", "feed_forward.down"),
    ),
    *gate_and_up(f"{_TELECHAT_LAYER}.mlp", "gate_proj", "up_proj"),
    Rule("transformer.ln_f.weight", "final_norm.weight"),
)

ARCHITECTURES = {
    "ApertusForCausalLM": Architecture(apertus, APERTUS_NAMES),
    "SmolLM3ForCausalLM": Architecture(smollm3, LLAMA_NAMES),
    "PanguEmbeddedForCausalLM": Architecture(pangu_embedded, LLAMA_NAMES),
    "TeleChat2ForCausalLM": Architecture(telechat2, TELECHAT_NAMES),
    "CwmForCausalLM": Architecture(cwm, LLAMA_NAMES),
    "SeedOssForCausalLM": Architecture(seed_oss, LLAMA_NAMES),
    "InternLM3ForCausalLM": Architecture(internlm3, LLAMA_NAMES),
    "IQuestCoderForCausalLM": Architecture(iquestcoder, LLAMA_NAMES),
    "HeliumForCausalLM": Architecture(helium, LLAMA_NAMES),
    "ArceeForCausalLM": Architecture(arcee, LLAMA_NAMES.with_rules(*PLAIN_MLP_RULES)),
}
