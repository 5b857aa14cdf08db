"""What an operator may do to a running engine: hold it, let it go on, and trace it.

The loop that obeys is `engine.core`; the routes for it are the server's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.engine.profiler import StepProfiler
from quire.ops.spans import Spans
from quire.protocol.request import EngineRequest

CONTROL_CALLS = (
    "reset_running", "pause", "hold_new", "resume", "start_profile", "stop_profile", "start_layers",
    "stop_layers",
)  # fmt: skip
"""Those of `engine.core.CALLS` that are for operators."""


class Control:
    """Whether the engine steps and takes requests.

    profiler_config  as in the settings. watch: the executor's.
    """

    def __init__(
        self, profiler_config: dict[str, Any], watch: Callable[[Spans | None], None]
    ) -> None:
        self.is_paused = False
        self._holds_new = False
        self._held: list[EngineRequest] = []
        self.profiler = StepProfiler(profiler_config, watch)

    def holds(self, request: EngineRequest) -> bool:
        """Whether a request that comes waits outside; then it is kept here."""
        if self._holds_new:
            self._held.append(request)
        return self._holds_new

    def drop(self, request_id: str) -> None:
        """Forgets a request that waits outside."""
        self._held = [one for one in self._held if one.request_id != request_id]

    def pause(self) -> bool:
        """From now on no step begins."""
        self.is_paused = True
        return True

    def hold_new(self) -> bool:
        """From now on requests wait outside."""
        self._holds_new = True
        return True

    def resume(self) -> list[EngineRequest]:
        """Everything as before; returns what waited outside, in order."""
        held, self._held = self._held, []
        self.is_paused = self._holds_new = False
        return held

    def on_step(self) -> None:
        """A step has ended."""
        if self.profiler.is_on:
            self.profiler.on_step()
