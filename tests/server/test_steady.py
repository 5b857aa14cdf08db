"""What a request leaves behind: nothing that only the collector could clear away, whose passes stop all streams."""

from __future__ import annotations

import asyncio
import gc
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from quire.server.admission import Admission
from tests.server.scripted import Scripted

Serve = Callable[..., Any]

BODIES: dict[str, tuple[int, dict[str, Any]]] = {
    "whole": (200, {"prompt": [50], "max_tokens": 3}),
    "streamed": (200, {"prompt": [50], "max_tokens": 3, "stream": True}),
    "two prompts": (200, {"prompt": [[50], [60]], "max_tokens": 3, "stream": True}),
    "wrong": (400, {"prompt": [50], "temperature": -1}),
    "too long": (400, {"prompt": [50] * 5000, "stream": True}),
    "refused": (429, {"prompt": [50], "stream": True}),
}


class Cycle:
    """One request as uvicorn has it: an object that knows the scope, and whose methods the application gets."""

    def __init__(self, body: dict[str, Any]) -> None:
        self.status = 0
        self.scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "path": "/v1/completions", "raw_path": b"/v1/completions", "root_path": "",
            "query_string": b"", "scheme": "http", "headers": [(b"host", b"127.0.0.1")],
            "server": ("127.0.0.1", 8000), "client": None,
        }  # fmt: skip
        self._body: bytes | None = json.dumps(body).encode()

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError

    async def send(self, message: dict[str, Any]) -> None:
        self.status = message.get("status", self.status)


async def ask(server: Scripted, body: dict[str, Any]) -> int:
    """The status of one answer, read to its end."""
    cycle = Cycle(body)
    await server.app(cycle.scope, cycle.receive, cycle.send)
    return cycle.status


@pytest.mark.parametrize("kind", BODIES)
def test_a_request_leaves_no_cycles(serve: Serve, kind: str) -> None:
    status, body = BODIES[kind]

    async def test(server: Scripted) -> None:
        if kind == "refused":
            now_s = [0.0]
            server.state.admission = Admission(0.1, step_tokens=1, clock=lambda: now_s[0])
            waits = server.state.admission.enter([[5] * 1000])
            now_s[0] = 60.0
        assert await ask(server, body) == status
        assert await server.is_clean()
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                assert await ask(server, body) == status
            assert await server.is_clean()
            gc.set_debug(gc.DEBUG_SAVEALL)
            gc.collect()
            left = Counter(type(one).__name__ for one in gc.garbage)
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        if kind == "refused":
            waits.close()
        assert not left

    serve(test)
