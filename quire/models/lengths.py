"""How long a sequence a description allows, and what of it depends on the length.

The description itself is `models.spec`.
"""

from __future__ import annotations

from quire.models.positions import DynamicScaling, LinearScaling, Temperature, YarnScaling
from quire.models.spec import Attention, DecoderSpec, Mla


def growths(spec: DecoderSpec) -> set[tuple[Temperature, int]]:
    """Each growth of queries that layers have, with the size of their heads."""
    mixers = [one for one in spec.attentions if isinstance(one, Attention | Mla)]
    return {(one.temperature, one.head_size) for one in mixers if one.temperature is not None}


def derived_max_len(spec: DecoderSpec) -> int:
    """The longest sequence in tokens that the description promises, position scaling included.

    Linear and dynamic scaling stretch the trained length, YaRN its own original length; with llama3
    and LongRoPE scaling the checkpoint already states the stretched length.
    """
    if spec.max_len is not None:
        return spec.max_len
    lengths = [spec.max_position_embeddings]
    for mixer in spec.attentions:
        scaling = mixer.rope.scaling if mixer.rope is not None else None
        if isinstance(scaling, LinearScaling):
            lengths.append(int(spec.max_position_embeddings * scaling.factor))
        elif isinstance(scaling, DynamicScaling | YarnScaling):
            lengths.append(int(scaling.original_len * scaling.factor))
    return max(lengths)
