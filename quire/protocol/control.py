"""Words of what an operator may ask of an engine.

What the engine does then is `engine.control`.
"""

from __future__ import annotations

from typing import Literal

from quire.protocol.errors import NotServedError

PauseMode = Literal["abort", "wait", "keep"]
"""What becomes of live requests when the engine is held: they end, end first, or are frozen."""


def reset_call(reset_running_requests: bool, reset_connector: bool) -> str:
    """The engine's call for a reset of the prefix cache. Raises NotServedError for a connector's."""
    if reset_connector:
        raise NotServedError("there is no cache connector to reset", param="reset_connector")
    return "reset_running" if reset_running_requests else "reset_prefix_cache"
