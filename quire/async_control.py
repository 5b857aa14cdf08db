"""What an operator may ask of a streaming engine: hold it, forget caches, trace it, look into it.

Requests themselves are `quire.async_llm`, whose class this one is the base of.
"""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from quire.engine.client import EngineClient
from quire.protocol.control import PauseMode, reset_call
from quire.protocol.errors import EngineDeadError, InvalidRequestError, NotServedError

_LOOK_S = 0.02


class EngineControl(ABC):
    """Calls to the engine that belong to no request. Raises EngineDeadError once it is dead."""

    _client: EngineClient
    _streams: Mapping[str, Any]
    _paused = False
    _sleeping = False

    @abstractmethod
    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        """Ends live requests; `internal`: the ids are those of streams."""

    @property
    @abstractmethod
    def is_running(self) -> bool:
        """Whether the engine lives."""

    @property
    @abstractmethod
    def dead_error(self) -> EngineDeadError:
        """Why it does not."""

    def _check_alive(self) -> None:
        if not self.is_running:
            raise self.dead_error

    async def _ask(self, name: str) -> Any:
        self._check_alive()
        try:
            return await asyncio.to_thread(self._client.call, name)
        except ValueError as error:
            raise InvalidRequestError(str(error)) from None

    # Caches.

    async def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Forgets all cached prefixes. False, and nothing forgotten, while a request uses blocks.

        reset_running_requests  take the blocks of live requests too; they go on by computing what they
                                had again, with the same result.
        """
        return bool(await self._ask(reset_call(reset_running_requests, reset_connector)))

    async def reset_mm_cache(self) -> None:
        """Forgets processed media, of which there is none."""
        self._check_alive()

    async def reset_encoder_cache(self) -> None:
        """Forgets encoded media, of which there is none."""
        self._check_alive()

    # Holding the engine.

    async def pause_generation(
        self,
        *,
        mode: PauseMode = "abort",
        wait_for_inflight_requests: bool | None = None,
        clear_cache: bool = True,
    ) -> None:
        """Holds the engine until `resume_generation`; requests that come meanwhile wait.

        mode  what becomes of live requests: abort ends them, wait lets them end first, keep freezes
              them, to go on later. `wait_for_inflight_requests` is an older word for wait.
        """
        self._check_alive()
        self._paused = True
        if mode == "wait" or wait_for_inflight_requests:
            live = set(self._streams)
            await self._ask("hold_new")
            while self._paused and live & self._streams.keys():
                await asyncio.sleep(_LOOK_S)
            if not self._paused:
                return  # resumed meanwhile
        elif mode == "abort":
            await self._ask("hold_new")
            await self.abort(list(self._streams), internal=True)
        await self._ask("pause")
        if clear_cache:
            await self._ask("reset_running")

    async def resume_generation(self) -> None:
        """Lets a held engine go on."""
        await self._ask("resume")
        self._paused = self._sleeping = False

    async def is_paused(self) -> bool:
        """Whether the engine is held, or about to be."""
        return self._paused

    async def sleep(self, level: int = 1, mode: PauseMode = "abort") -> None:
        """Level 0 holds the engine. Raises NotServedError for others, which would move weights away."""
        if level != 0:
            raise NotServedError(
                f"level is {level}; weights and cache stay in memory in this version, so only level 0, "
                "which holds the engine, is served",
                param="level",
            )
        await self.pause_generation(mode=mode, clear_cache=False)
        self._sleeping = True

    async def wake_up(self, tags: Sequence[str] | None = None) -> None:
        """Ends a sleep."""
        await self.resume_generation()

    async def is_sleeping(self) -> bool:
        """Whether `sleep` holds the engine."""
        return self._sleeping

    async def abort_requests(self, request_ids: Sequence[str] = ()) -> int:
        """Ends live requests by the ids that clients know, all of them without ids; how many there were.

        An id is that of an answer, as cmpl-abc, or the one that the client gave, as abc.
        """
        wanted = set(request_ids)
        found = [name for name in self._streams if not wanted or _names_of(name) & wanted]
        await self.abort(found, internal=True)
        return len(found)

    # Looking into it.

    async def start_profile(self, profile_prefix: str | None = None) -> None:
        """Begins a trace of the engine's process, as --profiler-config says."""
        await self._ask("start_profile")

    async def stop_profile(self) -> str:
        """Ends the trace; the path of its file."""
        return str(await self._ask("stop_profile"))

    async def collective_rpc(
        self,
        method: str,
        timeout: float | None = None,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> list[Any]:
        """The value of one of the engine's calls, in a list: there is one worker.

        Raises InvalidRequestError for other names, and for arguments: code never comes from outside.
        """
        if args or kwargs:
            raise NotServedError("the engine's calls take no arguments; leave args and kwargs out")
        return [await self._ask(method)]

    async def engine_view(self) -> str:
        """The engine's requests and cache at this moment: an `EngineView` as JSON."""
        return str(await self._ask("engine_view"))


def _names_of(stream: str) -> set[str]:
    """What a client may call the request of a stream, whose own id ends in a random part."""
    job = stream.rpartition("-")[0]
    request = re.sub(r"-\d+$", "", job) if job.startswith("cmpl-") else job
    return {job, request, request.partition("-")[2]}
