"""What attention is told of a cache whose codes have no scales of their own, but two for a layer.

The codes themselves are `ops.cache_codes`; where the scales come from is `quant.schemes.cache`.
"""

from __future__ import annotations

from typing import Any

CacheScales = tuple[float, float] | None
"""What a code of a key and of a value stands for; None where there are no such scales."""


def with_scales(
    scale: float, of_cache: CacheScales, **more: Any
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of an attention's `write` and, with `more`, of its run, for scores times `scale`."""
    if of_cache is None:
        return {}, {"scale": scale, **more}
    of_key, of_value = of_cache
    to_run = {"scale": scale * of_key, "value_scale": of_value, **more}
    return {"inverses": (1.0 / of_key, 1.0 / of_value)}, to_run
