"""A running server as the terminal commands see it: its model's name, and answers piece by piece.

What is on the wire is `quire.bench.wire`; what stands on the screen is `quire.cli.terminal`.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

from quire.bench import wire
from quire.bench.wire import Delta, EventReader, ServerFailedError


@dataclass
class Reply:
    """What came of one request, as far as it has come. Times in seconds."""

    text: str = ""
    num_tokens: int = 0
    first_s: float | None = None
    total_s: float = 0.0
    finish_reason: str | None = None

    def stats(self) -> str:
        """One line: time to the first token, and tokens per second after it."""
        if self.first_s is None:
            return f"no token in {self.total_s:.3f} s"
        rest_s = self.total_s - self.first_s
        rate = (self.num_tokens - 1) / rest_s if self.num_tokens > 1 and rest_s > 0 else 0.0
        shown = f", {rate:.1f} tokens/s" if rate else ""
        return (
            f"TTFT {self.first_s:.3f} s{shown} ({self.num_tokens} tokens in {self.total_s:.3f} s)"
        )


class Server:
    """A server at `url`, which ends in /v1. Use as a context manager.

    Waits without limit for an answer that has been asked for: the user's Ctrl-C ends it.
    """

    def __init__(self, url: str, api_key: str | None = None) -> None:
        """Raises ServerFailedError for an address or key that cannot be one."""
        self.url = url.rstrip("/")
        try:
            address = httpx.URL(self.url)
        except httpx.InvalidURL as error:
            raise ServerFailedError(f"{url!r} is no address: {error}") from None
        if address.scheme not in ("http", "https") or not address.host:
            raise ServerFailedError(f"{url!r} is no address; write one as http://localhost:8000/v1")
        self._client = httpx.Client(
            headers=wire.headers(api_key),
            timeout=httpx.Timeout(None, connect=wire.CONNECT_TIMEOUT_S),
            trust_env=not wire.is_local(self.url),
        )

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()

    def first_model(self) -> str:
        """The name of the first model that the server lists. Raises ServerFailedError."""
        where = f"{self.url}/models"
        try:
            answer = self._client.get(where, timeout=wire.CONNECT_TIMEOUT_S)
        except httpx.HTTPError as error:
            raise wire.no_answer(self.url, error) from None
        if answer.status_code != 200:
            raise ServerFailedError(wire.error_text(answer.text, answer.status_code))
        try:
            listing = answer.json()
        except ValueError:
            raise ServerFailedError(f"{where} is not the list of a server's models") from None
        name: str = wire.first_model(listing, where)["id"]
        return name

    def stream(self, path: str, body: dict[str, Any], reply: Reply) -> Generator[Delta, None, None]:
        """The deltas of an answer as they come; `reply` grows with them, and is right after any end.

        Raises ServerFailedError if the server cannot be reached, refuses, or breaks off.
        """
        start = time.perf_counter()
        counted = None
        try:
            with self._client.stream("POST", f"{self.url}/{path}", json=body) as answer:
                if answer.status_code != 200:
                    text = answer.read().decode("utf-8", "replace")
                    raise ServerFailedError(wire.error_text(text, answer.status_code))
                reader = EventReader()
                for piece in answer.iter_bytes():
                    for data in reader.feed(piece):
                        delta = Delta(data)
                        if delta.is_end:
                            return
                        counted = delta.usage or counted
                        _take(reply, delta, start)
                        yield delta
            raise ServerFailedError("the answer broke off before its end")
        except httpx.ConnectError as error:
            raise wire.no_answer(self.url, error) from None
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ServerFailedError(f"the answer broke off: {reason}") from None
        finally:
            reply.total_s = time.perf_counter() - start
            if counted is not None:
                reply.num_tokens = counted[1]


def _take(reply: Reply, delta: Delta, start: float) -> None:
    """Counts an event with text as one token; the usage at the end corrects that."""
    if delta.text or delta.reasoning:
        reply.text += delta.text
        reply.num_tokens += 1
        if reply.first_s is None:
            reply.first_s = time.perf_counter() - start
    reply.finish_reason = delta.finish_reason or reply.finish_reason
