"""BGE-M3: an embedding of a text, a weight of each of its tokens, and a vector of each.

Source: arXiv 2402.03216; the tasks are those of vLLM's `BgeM3EmbeddingModel`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quire.models.head_layers import HeadLayer
from quire.models.hf_config import HfConfig
from quire.models.loading.forms import PICKLES
from quire.models.sentence_modules import SentenceModules
from quire.models.spec import DecoderSpec
from quire.protocol.pooler import BOTH, Pooler, SequencePooling


def pooler_of(
    values: Mapping[str, Any],
    spec: DecoderSpec,
    modules: SentenceModules,
    pooling: SequencePooling,
) -> tuple[Pooler, dict[str, tuple[HeadLayer, ...]]]:
    """What the model can do, and the heads of its tasks. Raises ModelLoadError."""
    hf = HfConfig(values, where="config.json")
    width = hf.optional_int("colbert_dim", None, minimum=-1) or -1
    ends = (hf.int_("bos_token_id", 0, minimum=0), hf.int_("eos_token_id", 2, minimum=0))
    pooler = Pooler(
        tasks=("embed", "token_embed", "token_classify", BOTH),
        pooling=pooling,
        width=spec.hidden_size,
        use_activation=modules.normalizes,
        activation="relu",
        marks=ends,
    )
    sizes = dict(zip(PICKLES, (1, spec.hidden_size if width < 1 else width), strict=True))
    weigh, turn = (
        HeadLayer(weight="weight", bias="bias", file=name, in_size=spec.hidden_size, out_size=size)
        for name, size in sizes.items()
    )
    return pooler, {"token_classify": (weigh,), BOTH: (weigh,), "token_embed": (turn,)}
