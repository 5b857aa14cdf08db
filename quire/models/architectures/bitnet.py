"""BitNet b1.58: Llama with a squared activation, and a norm inside each part before its product back.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, dense, plain
from quire.models.name_parts import LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule
from quire.models.spec import DecoderSpec


def bitnet(hf: HfConfig) -> DecoderSpec:
    """`BitNetForCausalLM`; defaults as in BitNetConfig. Source: arXiv 2504.12285."""
    eps = hf.positive("rms_norm_eps", 1e-5)
    mixer = attention(
        hf, kv_heads=5, theta=("rope_theta", 500_000.0), mixed_norm=True, norm_eps=eps
    )
    return plain(hf, mixer, dense(hf, default="relu2", inner_eps=eps), eps=1e-5)


_NAMES = LLAMA_NAMES.with_rules(
    Rule(f"{LAYER}.self_attn.attn_sub_norm.weight", f"{OURS}.mixer.mixed_norm.weight"),
    Rule(f"{LAYER}.mlp.ffn_sub_norm.weight", f"{OURS}.feed_forward.inner_norm.weight"),
)

ARCHITECTURES = {"BitNetForCausalLM": Architecture(bitnet, _NAMES)}
