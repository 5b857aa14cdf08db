"""RWKV-4: no attention, and each part reads a token blended with the one before it.

Each of its layers is two of ours, of which each is one mixer behind one norm.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder
from quire.models.name_parts import OURS, pair
from quire.models.names import Rule, WeightMap
from quire.models.recurrent import ChannelMix, TimeMix
from quire.models.spec import DecoderSpec, LayerSpec

_END_EPS = 1e-5  # of the final norm, whatever the file says of the others


def rwkv(hf: HfConfig) -> DecoderSpec:
    """`RwkvForCausalLM`; defaults as in RwkvConfig. Source: arXiv 2305.13048.

    Transformers halves the residual stream behind every `rescale_every` layers and what is added to it from there
    on. Norms undo that but for their eps, which are so much larger here instead: the stream stays as it is.
    The halving keeps float16 in range there; `--dtype auto` takes bfloat16 for files in float16.
    """
    size, count = hf.int_("hidden_size", 4096), hf.int_("num_hidden_layers", 32)
    mixers = (
        TimeMix(hidden_size=size, inner=hf.optional_int("attention_hidden_size") or size),
        ChannelMix(hidden_size=size, inner=hf.optional_int("intermediate_size") or 4 * size),
    )
    every, eps = hf.int_("rescale_every", 6, minimum=-1), hf.positive("layer_norm_epsilon", 1e-5)
    times = [4.0 ** (number // every if every > 0 else 0) for number in range(count + 1)]
    layers = [
        LayerSpec(
            mixer=mixer,
            feed_forward=None,
            placement="mixer_only",
            norm="layer",
            norm_eps=eps * grown,
        )
        for grown in times[:-1]
        for mixer in mixers
    ]
    return decoder(
        hf,
        layers,
        vocab_size=hf.int_("vocab_size", 50_277),
        hidden_size=size,
        max_position_embeddings=hf.int_("context_length", hf.int_("max_position_embeddings", 1024)),
        embedding_norm="layer",
        embedding_eps=eps,
        norm_eps=_END_EPS * times[-1],
    )


_LAYER = "rwkv.blocks.{half}"
_TIME, _CHANNEL, _MIXER = f"{_LAYER}.attention", f"{_LAYER}.feed_forward", f"{OURS}.mixer"
_BLENDED = ("key", "value", "receptance")

NAMES = WeightMap(
    rules=(
        Rule("rwkv.embeddings.weight", "embedding.weight"),
        *pair("rwkv.blocks.0.pre_ln", "embedding_norm"),
        *pair(f"{_LAYER}.ln{{turn}}", f"{OURS}.norm_before_mixer"),
        *(Rule(f"{_TIME}.{name}.weight", f"{_MIXER}.{name}.weight") for name in _BLENDED),
        *(
            Rule(f"{_TIME}.time_mix_{name}", f"{_MIXER}.shares", parts=(part,), squeeze=True)
            for part, name in enumerate(_BLENDED)
        ),
        Rule(f"{_TIME}.time_decay", f"{_MIXER}.decay", fold="minus_exp"),
        Rule(f"{_TIME}.time_first", f"{_MIXER}.first"),
        Rule(f"{_TIME}.output.weight", f"{_MIXER}.back.weight"),
        *(
            Rule(f"{_CHANNEL}.time_mix_{name}", f"{_MIXER}.blends", parts=(part,), squeeze=True)
            for part, name in enumerate(("key", "receptance"))
        ),
        Rule(f"{_CHANNEL}.key.weight", f"{_MIXER}.up.weight"),
        Rule(f"{_CHANNEL}.receptance.weight", f"{_MIXER}.gate.weight"),
        Rule(f"{_CHANNEL}.value.weight", f"{_MIXER}.down.weight"),
        *pair("rwkv.ln_out", "final_norm"),
        Rule("head.weight", "head.weight"),
    ),
    ignored_if_tied=("head.weight",),
)

ARCHITECTURES = {"RwkvForCausalLM": Architecture(rwkv, NAMES)}
