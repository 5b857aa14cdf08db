"""What a program may ask of its engine beside answers: forget caches, trace it, hold it, call it by name.

`quire.llm` has the answers, and this class as a base; `quire.async_control` is the same for streams.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from quire.llm_engine import LLMEngine
from quire.protocol.control import PauseMode
from quire.protocol.errors import NotServedError

_AWAY = (
    "level is {}; weights and cache stay in memory in this version, so only level 0, which holds the "
    "engine, is served"
)


class LLMControl(ABC):
    """Calls to the engine that belong to no prompt. Raises EngineDeadError once the engine has ended."""

    _sleeping = False

    @property
    @abstractmethod
    def llm_engine(self) -> LLMEngine:
        """The engine."""

    def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Forgets all cached prefixes. False, and nothing forgotten, while a request uses blocks."""
        return self.llm_engine.reset_prefix_cache(reset_running_requests, reset_connector)

    def reset_mm_cache(self) -> None:
        """Forgets processed media, of which there is none."""
        _ = self.llm_engine

    def reset_encoder_cache(self) -> None:
        """Forgets encoded media, of which there is none."""
        _ = self.llm_engine

    def start_profile(self, profile_prefix: str | None = None) -> None:
        """Begins a trace, as profiler_config says; `profile_prefix` is not read. Raises ValueError."""
        self.llm_engine.client.call("start_profile")

    def stop_profile(self) -> str:
        """Ends the trace; the path of its file. Raises ValueError."""
        return str(self.llm_engine.client.call("stop_profile"))

    def sleep(self, level: int = 1, mode: PauseMode = "abort") -> None:
        """Level 0 holds the engine; `generate` is an error until `wake_up`. Nothing is live then, so
        `mode` changes nothing. Raises NotServedError for other levels, which would move weights away."""
        if level != 0:
            raise NotServedError(_AWAY.format(level), param="level")
        _ = self.llm_engine
        self._sleeping = True

    def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Ends a sleep; there is one kind, so `tags` change nothing."""
        _ = self.llm_engine
        self._sleeping = False

    def get_world_size(self, include_dp: bool = True) -> int:
        """Devices that compute: one."""
        return 1

    def collective_rpc(
        self,
        method: str | Callable[..., Any],
        timeout: float | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """The value of one of the engine's calls, in a list: there is one worker.

        Raises ValueError for a name that it does not have, NotServedError for functions and arguments.
        """
        if not isinstance(method, str):
            raise NotServedError("functions are not run inside the engine; name one of its calls")
        if args or kwargs:
            raise NotServedError("the engine's calls take no arguments; leave args and kwargs out")
        return [self.llm_engine.client.call(method)]

    def apply_model(self, func: Callable[[Any], Any]) -> list[Any]:
        """Raises NotServedError: the model is no torch module that a function could walk through."""
        raise NotServedError(
            "apply_model is not served: a model here is a description and packed weights, no torch module"
        )

    def check_awake(self) -> None:
        """Raises NotServedError while the engine sleeps."""
        if self._sleeping:
            raise NotServedError("the engine sleeps; call wake_up() first")
