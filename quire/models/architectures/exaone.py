"""EXAONE 4: norms after each part and over each head of q and k; layers without a window have no positions.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense
from quire.models.hf_parts import sliding_layers
from quire.models.names import LLAMA_NAMES, POST_NORM_RULES, QK_NORM_RULES
from quire.models.spec import DecoderSpec, LayerSpec


def exaone4(hf: HfConfig) -> DecoderSpec:
    """`Exaone4ForCausalLM`: without `sliding_window` all layers have positions. Source: arXiv 2507.11407."""
    eps = hf.positive("rms_norm_eps", 1e-5)
    window = hf.optional_int("sliding_window", 4096)
    plain = attention(hf, bias=None, qk_norm="per_head", norm_eps=eps)
    if window is None or hf.has("layer_types"):
        hf.skip("sliding_window_pattern")  # also a string such as "LLLG", which layer_types repeats
        every = 0
    else:
        every = hf.int_("sliding_window_pattern", 4)
    layers = [
        LayerSpec(
            mixer=replace(
                plain,
                window=window if slides else None,
                rope=plain.rope if slides or window is None else None,
            ),
            feed_forward=dense(hf),
            placement="post",
            norm_eps=eps,
        )
        for slides in sliding_layers(hf, lambda index: every > 0 and (index + 1) % every != 0)
    ]
    return decoder(hf, layers)


ARCHITECTURES = {
    "Exaone4ForCausalLM": Architecture(
        exaone4, LLAMA_NAMES.with_rules(*POST_NORM_RULES, *QK_NORM_RULES)
    )
}
