"""The engine's load as a response header, for balancers that ask for it (ORCA), and as a block of JSON.

The same numbers as series are `quire.metrics`.
"""

from __future__ import annotations

import json
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quire.server.state import ServerState

_ASK = "endpoint-load-metrics-format"
_ANSWER = "endpoint-load-metrics"


class LoadHeader:
    """ASGI middleware: answers a request for the load, in the form text or json."""

    def __init__(self, app: ASGIApp, state: ServerState) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        wanted = Headers(scope=scope).get(_ASK, "").lower() if scope["type"] == "http" else ""
        if wanted not in ("text", "json"):
            await self._app(scope, receive, send)
            return

        async def with_load(message: Message) -> None:
            if message["type"] == "http.response.start":
                line = self._line(wanted)
                if line:
                    MutableHeaders(scope=message)[_ANSWER] = line
            await send(message)

        await self._app(scope, receive, with_load)

    def _line(self, form: str) -> str:
        llm = self._state.llm
        if llm is None or not self._state.ready:
            return ""
        stats = llm.stats
        named = {
            "kv_cache_usage_perc": round(stats.cache_usage, 6),
            "num_requests_waiting": float(stats.num_waiting),
        }
        if form == "json":
            return "JSON " + json.dumps({"named_metrics": named})
        return "TEXT " + ", ".join(f"named_metrics.{name}={one:g}" for name, one in named.items())


async def cache_report(state: ServerState) -> dict[str, Any]:
    """Blocks of the cache, of its first group: all, used by live requests, and free."""
    llm = state.serving_llm()
    info, stats = llm.info, llm.stats
    used = (await llm.collective_rpc("blocks_in_use"))[0]
    return {
        "kv_cache": {
            "blocks_total": info.num_blocks,
            "blocks_used": used,
            "blocks_free": max(0, info.num_blocks - used),
            "block_size": info.block_size,
            "capacity_tokens": info.capacity_tokens,
            "bytes_total": info.cache_bytes,
        },
        "num_requests_running": stats.num_running,
        "num_requests_waiting": stats.num_waiting,
    }
