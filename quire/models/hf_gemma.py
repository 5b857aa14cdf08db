"""Pieces of a description that Gemma's generations spell alike.

What each generation adds is in its family file.
"""

from __future__ import annotations

from typing import Any

from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation
from quire.models.hf_parts import rope
from quire.models.spec import Activation, Rope


def around(hf: HfConfig, width: int | None = None) -> dict[str, Any]:
    """What all have around the layers; `width` is a default of `hidden_size`."""
    size = hf.int_("hidden_size") if width is None else hf.int_("hidden_size", width)
    return {"hidden_size": size, "embedding_scale": size**0.5, "tie": True, "max_len": 8192}


def gemma_activation(hf: HfConfig) -> Activation:
    """What `hidden_activation` says."""
    return activation(hf, "gelu_pytorch_tanh", key="hidden_activation")


def two_ropes(hf: HfConfig, head_size: int) -> tuple[Rope, Rope]:
    """Positions of layers with a window and of those without.

    The old spelling has a base for each and one `rope_scaling`, which is for the latter only.
    """
    base, local_base = ("rope_theta", 1_000_000.0), ("rope_local_base_freq", 10_000.0)
    if hf.has("rope_parameters") and not hf.has("rope_scaling"):
        local = rope(hf, head_size=head_size, sliding=True, theta=local_base)
    else:
        local = Rope(dim=head_size, theta=hf.positive(*local_base))
    return local, rope(hf, head_size=head_size, theta=base)
