"""The decoder of the text in the file of a model that sees or hears too: its description, and names of its tensors.

Pictures and sounds are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any

from quire.models.hf_config import HfConfig
from quire.models.name_parts import nested
from quire.models.names import WeightMap
from quire.models.spec import DecoderSpec

_OTHER_PARTS = (
    "_config",
    "_token_id",
    "_token_index",
    "_tokens_per_image",
    "_token_len",
    "_feature_layer",
    "_feature_select_strategy",
    "image_seq_length",
    "_grid_pinpoints",
    "image_newline_parameter",
    "projector_bias",
    "projector_hidden_size",
    "projector_hidden_act",
    "projector_stride",
    "spatial_merge_size",
    "ignore_index",
    "vision_chunk",
    "video_placeholder",
)
"""Ends of keys about images and sounds."""
_GENERATION = (
    *("do_sample", "early_stopping", "length_penalty", "max_length", "min_length", "num_beams"),
    *("num_beam_groups", "num_return_sequences", "no_repeat_ngram_size", "diversity_penalty"),
    *("encoder_no_repeat_ngram_size", "output_scores", "remove_invalid_values", "typical_p"),
    *("repetition_penalty", "return_dict_in_generate", "temperature", "top_k", "top_p"),
    *("tf_legacy_loss", "use_bfloat16"),
)
"""What older versions of Transformers wrote into every inner configuration: defaults of its own generation."""


def text_alone(
    describe: Callable[[HfConfig], DecoderSpec],
    *,
    defaults: Mapping[str, Any] | None = None,
    flat: bool = False,
    outer_ties: bool = False,
) -> Callable[[HfConfig], DecoderSpec]:
    """What describes such a file, of what describes `text_config` alone.

    `tie_word_embeddings` beside `text_config` counts where that does not say it.
    defaults  of keys that the text's decoder alone must have.
    flat      the text's keys may stand beside those of the images, without `text_config` or again.
    outer_ties  what `text_config` says of `tie_word_embeddings` does not count.
    """

    @wraps(describe)
    def description(hf: HfConfig) -> DecoderSpec:
        text = hf.section("text_config") or (hf if flat else None)
        if text is None:
            raise hf.refuse("text_config", "it must describe the decoder of the text")
        text.add_defaults(defaults or {})
        text.skip(*_GENERATION, "quantization_config")  # that is read with the tensors
        for one in (hf, text):
            one.skip(*(name for name in one.names() if name.endswith(_OTHER_PARTS)))
        if flat:
            hf.skip(*text.names())  # which some versions of Transformers wrote twice
        if text is not hf:
            hf.skip("vocab_size")  # which is that of the text in old files
        spec = describe(text)
        tied = hf.bool_("tie_word_embeddings", not outer_ties and spec.tie_head)
        if text.has("tie_word_embeddings") and not outer_ties:
            return spec
        return replace(spec, tie_head=tied)

    return description


def beside_visual(names: WeightMap) -> WeightMap:
    """The map of a text's decoder beside `visual`, as files are written today and as they were: as if alone."""
    older = (("model.language_model.", "model."), ("model.visual.", "visual."))
    return replace(nested(names, "visual."), older=older)


def llava_names(
    names: WeightMap, parts: tuple[str, ...] = ("vision_tower.", "multi_modal_projector.")
) -> WeightMap:
    """The map of a text's decoder beside a tower and a projector, as files are written today and as they were."""
    older = (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        *((f"model.{part}", part) for part in parts),
    )
    return replace(nested(names, *parts), older=older)
