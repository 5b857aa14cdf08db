"""What the engine does, as the page shows it: one JSON snapshot, shared by all who look at once.

Nothing runs while nobody looks. Drawing is `server/ui/`; the engine's part is `protocol.engine_view`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from quire.metrics.reader import Histogram, read_histogram
from quire.protocol.engine_view import EngineView, decode_view
from quire.protocol.errors import EngineDeadError
from quire.server.sse import event
from quire.server.state import ServerState

INTERVAL_S = 0.5
"""Time between two snapshots of a stream."""

_FRESH_S = 0.2
_PATIENCE_S = 2.0  # an engine that answers later is starting again, or in a very long step
_TIMES = {
    "ttft": "vllm:time_to_first_token_seconds",
    "itl": "vllm:inter_token_latency_seconds",
}

encode = msgspec.json.Encoder().encode


class LiveView:
    """The snapshots of one server. Use it from the event loop."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._latest = b""
        self._made_s = float("-inf")
        self._making: asyncio.Task[bytes] | None = None

    async def snapshot(self) -> bytes:
        """A snapshot at most 0.2 s old, as JSON. The engine is asked between two of its steps."""
        if time.monotonic() - self._made_s < _FRESH_S:
            return self._latest
        if self._making is None or self._making.done():
            self._making = asyncio.create_task(self._make())
        # One who leaves does not take it from the others who wait for it.
        return await asyncio.shield(self._making)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Snapshots as events, until the server ends."""
        while not self._state.draining:
            yield event(await self.snapshot())
            await asyncio.sleep(INTERVAL_S)

    async def _make(self) -> bytes:
        state = self._state
        view = await self._engine()
        state.take_stats()
        phase, percent = state.phase
        found: dict[str, Any] = {
            "at_s": time.monotonic(),
            "model": state.names[0],
            "phase": phase,
            "percent": percent,
            "engine": view,
        }
        llm = state.llm
        if llm is not None and state.ready:
            found["stats"] = llm.stats
            found["info"] = {
                "max_model_len": llm.info.max_model_len,
                "max_num_seqs": llm.info.max_num_seqs,
                "cache_bytes": llm.info.cache_bytes,
                "capacity_tokens": llm.info.capacity_tokens,
            }
            if state.serving.enabled:
                found |= {key: self._times(name) for key, name in _TIMES.items()}
        self._latest = encode(found)
        self._made_s = time.monotonic()
        return self._latest

    async def _engine(self) -> EngineView | None:
        llm = self._state.llm
        if llm is None or self._state.phase[0] != "ready" or llm.errored:
            return None
        try:
            async with asyncio.timeout(_PATIENCE_S):
                return decode_view(await llm.engine_view())
        except (EngineDeadError, TimeoutError):
            return None

    def _times(self, name: str) -> dict[str, Any]:
        """A histogram since the start: how many, their sum in seconds, and the counts below each bound."""
        found: Histogram = read_histogram(self._state.metrics.registry, name)
        return {
            "count": found.count,
            "sum": found.sum,
            "bounds": [float(bound) for bound in found.buckets if bound != "+Inf"],
            "counts": list(found.buckets.values()),
        }
