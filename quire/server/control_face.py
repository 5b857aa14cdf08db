"""What the routes of an operator ask of the engine's streaming face; part of `server.face.Face`.

The real one is `quire.async_control.EngineControl`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from quire.protocol.control import PauseMode


class ControlFace(Protocol):
    """An engine that can be held, looked into and made to forget."""

    async def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Forgets cached prefixes; False, and nothing forgotten, while requests hold blocks."""
        ...

    async def reset_mm_cache(self) -> None:
        """Forgets processed media."""
        ...

    async def reset_encoder_cache(self) -> None:
        """Forgets encoded media."""
        ...

    async def pause_generation(
        self,
        *,
        mode: PauseMode = "abort",
        wait_for_inflight_requests: bool | None = None,
        clear_cache: bool = True,
    ) -> None:
        """Holds the engine."""
        ...

    async def resume_generation(self) -> None:
        """Lets it go on."""
        ...

    async def is_paused(self) -> bool:
        """Whether it is held."""
        ...

    async def sleep(self, level: int = 1, mode: PauseMode = "abort") -> None:
        """Holds the engine at level 0. Raises NotServedError for others."""
        ...

    async def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Ends a sleep."""
        ...

    async def is_sleeping(self) -> bool:
        """Whether a sleep holds it."""
        ...

    async def abort_requests(self, request_ids: Sequence[str] = ()) -> int:
        """Ends live requests, all without ids; how many there were."""
        ...

    async def start_profile(self, profile_prefix: str | None = None) -> None:
        """Begins a trace. Raises InvalidRequestError."""
        ...

    async def stop_profile(self) -> str:
        """Ends it; the path of its file. Raises InvalidRequestError."""
        ...

    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """The value of one of the engine's calls. Raises InvalidRequestError."""
        ...
