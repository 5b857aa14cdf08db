"""Which weights native threads pack before torch is there: those of the resolved settings, where that pays.

How they do it is `models.loading.ahead`.
"""

from __future__ import annotations

from pathlib import Path

from quire.config.env import cache_dir
from quire.engine.resolve import ResolvedSettings
from quire.models.loading.ahead import Ahead, begin_ahead
from quire.models.loading.checkpoint import read_checkpoint
from quire.models.loading.kept import Keeping, ReadAhead, about_packed, read_ahead
from quire.models.registry import ModelDescription
from quire.quant.schemes.checkpoint import scheme_for


def pack_ahead(
    resolved: ResolvedSettings, description: ModelDescription
) -> Ahead | ReadAhead | None:
    """Lets native threads pack the weights from now on, or read those that are kept; None where neither helps.

    For callers that are about to import torch; with all but one thread, which that needs.
    """
    settings = resolved.settings
    num_threads = max((settings.parallel.threads or 1) - 1, 1)
    if settings.load.load_format == "dummy":
        return None
    if settings.load.packed_weights_gib:
        return read_ahead(_kept_file(resolved, description), resolved.kernels, num_threads)
    return begin_ahead(
        description,
        dtype=resolved.dtype,
        isa=resolved.kernels,
        is_plain=settings.model.quantization is None,
        num_threads=num_threads,
    )


def _kept_file(resolved: ResolvedSettings, description: ModelDescription) -> Path:
    """Where `models.build` will look for packed weights."""
    settings = resolved.settings
    scheme = scheme_for(
        settings.model.quantization,
        description.quantization,
        description.formats,
        resolved.device,
        settings.model.activation_bits,
    )
    spec = description.spec.for_length(resolved.max_model_len)
    about = about_packed(description.hf_config, spec, resolved.dtype, scheme)
    checkpoint = read_checkpoint(Path(description.path), description.hf_config)
    keeping = Keeping(cache_dir() / "packed", 0, about, resolved.kernels or "")
    return keeping.path({one.path for one in checkpoint.files.values()})
