"""ERNIE 4.5: neighbours turn in pairs, one key for all biases.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import attention, decoder, dense
from quire.models.names import LLAMA_NAMES
from quire.models.spec import DecoderSpec, LayerSpec


def ernie4_5(hf: HfConfig) -> DecoderSpec:
    """`Ernie4_5ForCausalLM`; defaults as in Ernie4_5Config."""
    bias = hf.bool_("use_bias", False)
    mixer = attention(
        hf,
        bias=None,
        head_dim=128,
        theta=("rope_theta", 500_000.0),
        interleaved=True,
        qkv_bias=bias,
        out_bias=bias,
    )
    layer = LayerSpec(
        mixer=mixer,
        feed_forward=dense(hf, bias=bias),
        norm_eps=hf.positive("rms_norm_eps", 1e-5),
    )
    return decoder(hf, layer, max_len=131_072, tie=True)


ARCHITECTURES = {"Ernie4_5ForCausalLM": Architecture(ernie4_5, LLAMA_NAMES)}
