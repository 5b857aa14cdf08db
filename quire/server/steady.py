"""What keeps the collector from stopping the event loop for tens of milliseconds.

Waiting for a core is `hardware.turns`.
"""

from __future__ import annotations

import gc

_COLLECT_AFTER = (10_000, 20, 100)
"""New objects that live, passes over the youngest, and over the middle. Ordinary requests leave no cycles."""


def forget_start() -> None:
    """Takes all there is out of the collector's sight, and lets it work; to be called once, before requests are served.

    What was loaded stays for good, and a pass over it took 60 ms of computing.
    """
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)
    gc.enable()


def collect_start() -> None:
    """Takes away what the start left; to be called once, at a time when nobody waits."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
