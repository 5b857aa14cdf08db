"""Reading a body ends with the task that reads it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import Request

from quire.config.server import ServerConfig
from quire.server.body import read_body


def test_a_cancellation_that_comes_with_the_body_is_kept() -> None:
    async def run() -> None:
        body: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()

        async def receive() -> dict[str, Any]:
            return await body

        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        reading = asyncio.create_task(read_body(request, ServerConfig()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        body.set_result({"type": "http.request", "body": b"{}"})
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    asyncio.run(run())
