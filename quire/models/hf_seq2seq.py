"""Pieces that encoder-decoder families have in common: their ends, and layers that look at an encoder.

What differs between families is in `models.architectures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from quire.models.hf_config import HfConfig
from quire.models.spec import Attention, DecoderSpec, LayerSpec, Placement

_GENERATION = (
    *("is_encoder_decoder", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id"),
    *("num_beams", "early_stopping", "no_repeat_ngram_size", "length_penalty", "min_length"),
    *("max_length", "num_beam_groups", "do_sample", "task_specific_params", "prefix"),
    *("dropout", "dropout_rate", "activation_dropout", "classifier_dropout", "classif_dropout"),
    *(
        "encoder_layerdrop",
        "decoder_layerdrop",
        "init_std",
        "initializer_factor",
        "gradient_checkpointing",
    ),
)
"""What `models.registry` or nobody reads of these files: where outputs begin, beams, training."""


def skip_common(hf: HfConfig, *more: str) -> None:
    """Counts as read what says nothing about the arithmetic, and `more`."""
    hf.skip(*_GENERATION, *more)


def both_ways(mixer: Attention) -> Attention:
    """The same attention as an encoder has it: each token sees all."""
    if mixer.distances is not None:
        mixer = replace(mixer, distances=replace(mixer.distances, both_ways=True))
    return replace(mixer, bidirectional=True)


def looking(layer: LayerSpec) -> LayerSpec:
    """A layer of a decoder that looks at an encoder with heads as its own ones."""
    assert isinstance(layer.mixer, Attention)
    placement: Placement = "pre_cross" if layer.placement == "pre" else "after_sums_cross"
    return replace(
        layer, placement=placement, cross=replace(layer.mixer, distances=None, cross=True)
    )


def check_width(hf: HfConfig, key: str, width: int, heads: int) -> int:
    """The size of heads that share `width`. Raises ModelLoadError if they cannot."""
    if width % heads:
        raise hf.refuse(key, f"d_model {width} must be a multiple of it")
    return width // heads


def refuse_other_table(hf: HfConfig, keys: Sequence[str]) -> None:
    """Raises ModelLoadError where encoder and decoder have tables of embeddings of their own."""
    for key in keys:
        if not hf.bool_(key, True):
            raise hf.refuse(
                key, "only one table of embeddings for encoder and decoder is supported"
            )


def tokens_of(spec: DecoderSpec) -> int:
    """The longest text that both halves take."""
    assert spec.encoder is not None
    return min(spec.max_position_embeddings, spec.encoder.max_len)
