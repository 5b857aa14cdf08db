"""Which weights native threads pack before torch is there: those of the resolved settings, where that pays.

How they do it is `models.loading.ahead`.
"""

from __future__ import annotations

from quire.engine.resolve import ResolvedSettings
from quire.models.loading.ahead import Ahead, begin_ahead
from quire.models.registry import ModelDescription


def pack_ahead(resolved: ResolvedSettings, description: ModelDescription) -> Ahead | None:
    """Lets native threads pack the weights from now on; None where that gains nothing.

    For callers that are about to import torch; with all but one thread, which that needs.
    """
    settings = resolved.settings
    is_plain = settings.model.quantization is None and not settings.load.packed_weights_gib
    return begin_ahead(
        description,
        dtype=resolved.dtype,
        isa=resolved.kernels,
        is_plain=is_plain and settings.load.load_format != "dummy",
        num_threads=max((settings.parallel.threads or 1) - 1, 1),
    )
