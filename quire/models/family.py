"""What a family file gives the registry for each architecture it knows.

Finding and checking a checkpoint is `models.registry`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from quire.models.hf_config import HfConfig
from quire.models.names import WeightMap
from quire.models.spec import DecoderSpec


@dataclass(frozen=True)
class Architecture:
    """A function from config.json to a description, and where the weights stand.

    own_head  the tensor of a head of its own: in checkpoints without it the embedding is the head,
              whatever config.json says.
    told_by_tensors  changes the description by the names of the checkpoint's tensors, for what config.json
              does not say; without a checkpoint it is not asked.
    """

    describe: Callable[[HfConfig], DecoderSpec]
    names: WeightMap
    own_head: str | None = None
    told_by_tensors: Callable[[DecoderSpec, Container[str]], DecoderSpec] | None = None
