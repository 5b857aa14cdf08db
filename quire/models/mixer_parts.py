"""What every mixer of a decoder is made with.

The mixers are made in `models.build_mixers` and `models.build_recurrent`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from quire.layers.shared_block import SharedBlock
from quire.models.spec import Rope, Temperature
from quire.ops.registry import Table
from quire.quant.formats import CacheStorage, Formats

BACK = -1
Tables = dict[Rope | tuple[Temperature | Rope, int], torch.Tensor]
"""Of positions, by what asks for them: a turn, a growth of queries and the size of heads, a turn and BACK."""


@dataclass(frozen=True)
class MixerParts:
    """What all mixers of a decoder are made with.

    size    of the residual stream. tables: [max_len, dim].
    format  of the weights; cache: how keys and values are kept.
    blocks  by the layer that they are known by: what several layers share.
    """

    table: Table
    size: int
    tables: Tables
    dtype: torch.dtype
    format: Formats
    cache: CacheStorage
    blocks: dict[int, SharedBlock] = field(default_factory=dict)
