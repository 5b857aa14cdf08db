"""What every engine client offers, wherever its engine runs.

The kinds of clients are `engine.client` and `engine.remote`; the loop itself is `engine.core`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from quire.config.schema import Settings
from quire.engine.resolve import describe_model
from quire.hardware.threads import bound_waiting
from quire.models.loading.hub import with_local_folders
from quire.models.registry import ModelDescription
from quire.protocol.outputs import EngineInfo, EngineOutputs
from quire.protocol.request import EngineRequest

OnOutputs = Callable[[EngineOutputs], None]
OnDeath = Callable[[str], None]


class EngineClient(ABC):
    """One engine, wherever it runs. `description` is known at once, `info` from `wait_ready` on.

    Names on the hub become folders here, once, for the front and the engine: `settings` holds those.
    Use either `step` (one thread drives) or `start` (a background thread calls back), not both.
    """

    def __init__(self, settings: Settings) -> None:
        bound_waiting()
        self.settings = with_local_folders(settings)
        self.description: ModelDescription = describe_model(self.settings)
        self.phase: tuple[str, int] = ("starting", -1)
        self._info: EngineInfo | None = None

    @property
    def info(self) -> EngineInfo:
        if self._info is None:
            self.wait_ready()
        assert self._info is not None
        return self._info

    @property
    def is_ready(self) -> bool:
        return self._info is not None

    @abstractmethod
    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        """Blocks until the engine can serve. Raises SettingsError, ModelLoadError or EngineDeadError."""

    @abstractmethod
    def add(self, request: EngineRequest) -> None:
        """Hands over a request that `frontend.inputs` has checked."""

    @abstractmethod
    def abort(self, request_id: str, index: int | None = None) -> None:
        """Ends a request, or one of its sequences; its blocks return within a step."""

    @abstractmethod
    def step(self) -> EngineOutputs | None:
        """News of the next step; None when nothing is left to do."""

    @abstractmethod
    def start(self, on_outputs: OnOutputs, on_death: OnDeath) -> None:
        """Calls back from a thread of its own until `shutdown`."""

    @abstractmethod
    def call(self, name: str) -> Any:
        """Runs one of `engine.core.CALLS` in the engine and returns its value."""

    @abstractmethod
    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Ends the engine; may be called twice."""
