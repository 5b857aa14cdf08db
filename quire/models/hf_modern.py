"""The layers of ModernBERT, which an encoder and a decoder have: rotary positions, gates, local and global layers.

The two are `architectures.bert` and `architectures.modern_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, dense
from quire.models.hf_encoder import SKIPPED, heads_of_all
from quire.models.hf_parts import default_head_size, rope, sliding_layers
from quire.models.name_parts import LAYER, ours, pair
from quire.models.names import Rule
from quire.models.spec import DecoderSpec, LayerSpec, NormKind, Rope


def modern_layers(hf: HfConfig, *, window: int, both_ways: bool) -> DecoderSpec:
    """The layers of ModernBERT, and its norms. window: tokens that a local layer sees, the token's own counted."""
    # Keys that its own code leaves unread.
    hf.skip(*SKIPPED, "layer_norm_eps", "position_embedding_type")
    size, bias = default_head_size(hf), hf.bool_("attention_bias", False)
    kind: NormKind = "layer" if hf.bool_("norm_bias", False) else "layer_unbiased"
    eps = hf.positive("norm_eps", 1e-5)
    act = activation(hf, "gelu", key="hidden_activation")
    part = dense(hf, activation=act, bias=hf.bool_("mlp_bias", False))
    every = hf.int_("global_attn_every_n_layers", 3)
    layers = []
    for index, is_local in enumerate(sliding_layers(hf, lambda index: index % every > 0)):
        mixer = heads_of_all(hf, bias=bias, rope=_modern_rope(hf, size, is_local))
        layers.append(
            LayerSpec(
                mixer=replace(mixer, window=window if is_local else None, bidirectional=both_ways),
                feed_forward=part,
                # What enters the first layer was normed just before.
                placement="pre" if index else "pre_feed_forward",
                norm=kind,
                norm_eps=eps,
            )
        )
    return DecoderSpec(
        vocab_size=hf.int_("vocab_size"),
        hidden_size=hf.int_("hidden_size"),
        max_position_embeddings=hf.int_("max_position_embeddings", 8192),
        layers=tuple(layers),
        norm=kind,
        norm_eps=eps,
        embedding_norm=kind,
    )


def _modern_rope(hf: HfConfig, head_size: int, is_local: bool) -> Rope:
    """Two bases, in the older spelling or the newer one."""
    theta = ("local_rope_theta", 10_000.0) if is_local else ("global_rope_theta", 160_000.0)
    hf.skip("local_rope_theta", "global_rope_theta")
    return rope(hf, head_size=head_size, sliding=is_local, theta=theta)


MODERN_RULES = (
    Rule("model.embeddings.tok_embeddings.weight", "embedding.weight"),
    *pair("model.embeddings.norm", "embedding_norm"),
    *pair(f"{LAYER}.mlp.Wi", "layers.{layer}.feed_forward.gate_up", parts=(0, 1)),
    *ours(
        LAYER,
        ("attn_norm", "norm_before_mixer"),
        ("attn.Wo", "mixer.out"),
        ("mlp_norm", "norm_before_feed_forward"),
        ("mlp.Wo", "feed_forward.down"),
    ),
    *pair("model.final_norm", "final_norm"),
)
"""Names of all but queries, keys and values."""
