"""Where the norms and residuals of a layer stand, by name; what the names mean is told in `models.spec.LayerSpec`."""

from __future__ import annotations

from typing import Literal

Placement = Literal[
    "pre",
    "pre_cross",
    "pre_weighed",
    "post",
    "sandwich",
    "sandwich_blended",
    "parallel",
    "parallel_shared",
    "after_sums",
    "after_sums_cross",
    "after_sums_twice",
    "pre_feed_forward",
    "pre_closed",
    "mixer_only",
    "feed_forward_only",
    "sandwich_open",
    "altup",
    "normed_stream",
    "shortcut_open",
    "shortcut_apart",
    "shortcut_close",
    "hyper",
]
