"""What happens to a request whose client goes away, and to one whose engine fails behind the first byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from quire.protocol.errors import RequestFailedError
from tests.server.scripted import Scripted

Serve = Callable[..., Any]


class Client:
    """A bare ASGI client that sends one request and goes when told."""

    def __init__(self, server: Scripted, body: dict[str, Any]) -> None:
        self.sent: list[dict[str, Any]] = []
        self._gone = asyncio.Event()
        self._body: bytes | None = json.dumps(body).encode()
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST",
            "path": "/v1/completions", "raw_path": b"/v1/completions", "root_path": "", "query_string": b"",
            "scheme": "http", "headers": [(b"host", b"127.0.0.1")], "server": ("127.0.0.1", 8000), "client": None,
        }  # fmt: skip
        self.task = asyncio.create_task(server.app(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)

    def leave(self) -> None:
        self._gone.set()


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("prompt", [[50], [[50], [60]]])
@pytest.mark.parametrize("after_first_token", [True, False])
def test_a_client_that_goes_frees_everything(
    serve: Serve, stream: bool, prompt: Any, after_first_token: bool
) -> None:
    async def test(server: Scripted) -> None:
        count = 1 if prompt == [50] else 2
        server.client.gate.clear()
        client = Client(server, {"prompt": prompt, "max_tokens": 50, "stream": stream})
        while len(server.client.live) < count:
            await asyncio.sleep(0.005)
        assert server.state.num_live == 1
        if after_first_token:
            server.client.step_once()
            if stream:
                while len(client.sent) < 2:
                    await asyncio.sleep(0.005)
        client.leave()
        async with asyncio.timeout(2):
            await client.task
        assert sorted(name.split("-")[2] for name, _ in server.client.aborted) == [
            str(one) for one in range(count)
        ]
        assert server.client.live == {} and server.state.num_live == 0
        assert server.series("quire:requests_accepted_total") == count
        assert server.series("quire:requests_aborted_total") == count
        assert server.series("vllm:request_success_total", finished_reason="abort") == count
        server.client.gate.set()

    serve(test)


def test_an_error_behind_the_first_byte_is_an_event(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(server: Scripted) -> None:
        real = server.llm.generate

        async def broken(*args: Any, **kwargs: Any) -> Any:
            async for output in real(*args, **kwargs):
                yield output
                raise RequestFailedError("it broke in /usr/lib/x.py")

        monkeypatch.setattr(server.llm, "generate", broken)
        server.client.gate.clear()
        task = asyncio.create_task(server.post({"prompt": [50], "max_tokens": 9, "stream": True}))
        while not server.client.live:
            await asyncio.sleep(0.005)
        server.client.step_once()
        response = await task
        server.client.gate.set()
        assert response.status_code == 200
        *_, error, done, end = response.text.split("\n\n")
        assert (done, end) == ("data: [DONE]", "")
        assert json.loads(error.removeprefix("data: ")) == {
            "error": {
                "message": "it broke in <path>",
                "type": "InternalServerError",
                "param": None,
                "code": 500,
            }
        }
        assert server.series("quire:requests_failed_total") == 1

    serve(test)


def test_an_error_before_the_first_byte_keeps_its_status(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for prompt in ([13, 13], [[13, 13], [50]]):
            response = await server.post({"prompt": prompt, "stream": True, "max_tokens": 3})
            if response.status_code == 200:  # the other prompt was first
                assert '"code":500' in response.text and response.text.endswith("data: [DONE]\n\n")
            else:
                assert response.status_code == 500
        wrong = await server.post({"prompt": [[50], [9999]], "stream": True})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "prompt")

    serve(test)


def test_forty_at_once_each_get_their_own(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        bodies = [
            {"prompt": [60 + n], "max_tokens": 5, "stream": n % 2 == 0, "return_token_ids": True}
            for n in range(40)
        ]
        alone = [
            (await server.post({**body, "stream": False})).json()["choices"][0]["token_ids"]
            for body in bodies
        ]
        together = await asyncio.gather(*(server.post(body) for body in bodies))
        for body, ids, response in zip(bodies, alone, together, strict=True):
            if body["stream"]:
                events = [
                    json.loads(one[6:])
                    for one in response.text.split("\n\n")
                    if one.startswith("data: {")
                ]
                assert [token for one in events for token in one["choices"][0]["token_ids"]] == ids
            else:
                assert response.json()["choices"][0]["token_ids"] == ids
        assert server.series("quire:requests_accepted_total") == 80
        assert server.series("quire:requests_finished_total") == 80

    serve(test)
