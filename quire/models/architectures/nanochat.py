"""NanoChat: norms without weights, also of the embedding; positions that turn the other way round.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain
from quire.models.name_parts import LAYER, OURS, ours
from quire.models.names import LLAMA_NAMES
from quire.models.spec import DecoderSpec


def nanochat(hf: HfConfig) -> DecoderSpec:
    """`NanoChatForCausalLM`; defaults as in NanoChatConfig. `logits_soft_cap` is an older name of its last key."""
    cap = hf.optional_positive("final_logit_softcapping", 15.0)
    if hf.optional_positive("logits_soft_cap", cap) != cap:
        raise hf.refuse("logits_soft_cap", f"it must be final_logit_softcapping {cap}")
    eps = hf.positive("rms_norm_eps", 1e-6)
    mixer = attention(hf, qk_norm="per_head", norm_eps=eps)  # turns leave norms as they are
    part = dense(hf, default="relu2", gated=False)
    return plain(hf, mixer, part, embedding_norm="rms", logit_softcap=cap or 0.0)


_TURNED = tuple(
    f"{LAYER}.self_attn.{name}_proj.{kind}" for name in "qk" for kind in ("weight", "bias")
)
_NORMS = ("norm_before_mixer", "norm_before_feed_forward", "mixer.q_norm", "mixer.k_norm")
NAMES = replace(
    LLAMA_NAMES.without(
        "final_norm", f"{OURS}.feed_forward.down", *(f"{OURS}.{norm}" for norm in _NORMS)
    )
    .with_rules(*ours(LAYER, ("mlp.fc1", "feed_forward.up"), ("mlp.fc2", "feed_forward.down")))
    .folded("turn_back", *_TURNED),
    ones=(
        "embedding_norm.weight",
        "final_norm.weight",
        *(f"{OURS}.{norm}.weight" for norm in _NORMS),
    ),
)

ARCHITECTURES = {"NanoChatForCausalLM": Architecture(nanochat, NAMES)}
