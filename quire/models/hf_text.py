"""The decoder of the text in the file of a model that sees or hears too: its description, and names of its tensors.

Pictures and sounds are not read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import wraps

from quire.models.hf_config import HfConfig
from quire.models.name_parts import nested
from quire.models.names import WeightMap
from quire.models.spec import DecoderSpec

_OTHER_PARTS = (
    "_config",
    "_token_id",
    "_token_index",
    "_tokens_per_image",
    "_feature_layer",
    "projector_bias",
    "projector_hidden_act",
    "spatial_merge_size",
)
"""Ends of keys about images and sounds."""


def text_alone(describe: Callable[[HfConfig], DecoderSpec]) -> Callable[[HfConfig], DecoderSpec]:
    """What describes such a file, of what describes `text_config` alone.

    `tie_word_embeddings` beside `text_config` counts where that does not say it.
    """

    @wraps(describe)
    def description(hf: HfConfig) -> DecoderSpec:
        text = hf.section("text_config")
        if text is None:
            raise hf.refuse("text_config", "it must describe the decoder of the text")
        hf.skip(*(name for name in hf.names() if name.endswith(_OTHER_PARTS)))
        spec = describe(text)
        tied = hf.bool_("tie_word_embeddings", spec.tie_head)
        return spec if text.has("tie_word_embeddings") else replace(spec, tie_head=tied)

    return description


def llava_names(names: WeightMap) -> WeightMap:
    """The map of a text's decoder beside a tower and a projector, as files are written today and as they were."""
    parts = ("vision_tower.", "multi_modal_projector.")
    older = (
        ("model.language_model.", "language_model.model."),
        ("lm_head.", "language_model.lm_head."),
        *((f"model.{part}", part) for part in parts),
    )
    return replace(nested(names, *parts), older=older)
