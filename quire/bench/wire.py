"""What a client says to a server of the OpenAI interface, and how it reads the answer.

The timing of many requests is `bench.load`; talking in a terminal is `quire.cli`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from quire.protocol.errors import QuireError

CONNECT_TIMEOUT_S = 10.0


class ServerFailedError(QuireError):
    """A server that does not answer, or answers with an error; the sentence is for the user."""


class EventReader:
    """Takes the bytes of an event stream in any pieces; gives the data of each whole event.

    Lines end with a line feed, with or without a carriage return before it; line separators of
    Unicode inside the data are data. Comments and fields other than `data` are passed over.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[str]:
        """The data of the events that this piece completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        events = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                events.append(b"\n".join(self._data).decode("utf-8", "replace"))
                self._data = []
        return events


class Delta:
    """One event of a stream of chat or plain completions, read leniently.

    text       what the choice's visible text grows by; `reasoning` what its thinking grows by.
    usage      (prompt tokens, completion tokens) where the event has them.
    is_end     whether this is the mark after the last event.
    Raises ServerFailedError for an event that is an error, or no JSON.
    """

    __slots__ = ("finish_reason", "is_end", "reasoning", "text", "usage")

    def __init__(self, data: str) -> None:
        self.text = self.reasoning = ""
        self.finish_reason: str | None = None
        self.usage: tuple[int, int] | None = None
        self.is_end = data.strip() == "[DONE]"
        if self.is_end:
            return
        try:
            body = json.loads(data)
        except ValueError:
            raise ServerFailedError(
                f"the server sent an event that is no JSON: {data[:200]}"
            ) from None
        if not isinstance(body, dict) or body.get("error") is not None:
            raise ServerFailedError(error_text(data))
        for choice in body.get("choices") or ():
            inside = choice.get("delta") or {}
            self.text += choice.get("text") or inside.get("content") or ""
            self.reasoning += inside.get("reasoning_content") or inside.get("reasoning") or ""
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        usage = body.get("usage")
        if usage:
            self.usage = (usage.get("prompt_tokens") or 0, usage.get("completion_tokens") or 0)


def chat_body(
    model: str, messages: Sequence[Mapping[str, str]], max_tokens: int | None
) -> dict[str, Any]:
    """The body of a streamed chat completion that ends with its usage."""
    return _streamed(
        {"model": model, "messages": list(messages)}, "max_completion_tokens", max_tokens
    )


def completion_body(model: str, prompt: str, max_tokens: int | None) -> dict[str, Any]:
    """The body of a streamed completion that ends with its usage."""
    return _streamed({"model": model, "prompt": prompt}, "max_tokens", max_tokens)


def _streamed(body: dict[str, Any], limit: str, max_tokens: int | None) -> dict[str, Any]:
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body if max_tokens is None else body | {limit: max_tokens}


def error_text(body: str, status: int | None = None) -> str:
    """The sentence inside an error body of any known form, with the HTTP status where there is one."""
    text: Any = body.strip()
    try:
        content = json.loads(body)
    except ValueError:
        content = None
    if isinstance(content, dict):
        inside = content.get("error", content.get("detail", content.get("message", text)))
        text = inside.get("message", inside) if isinstance(inside, dict) else inside
    said = str(text)[:500] or "no reason given"
    return said if status is None else f"HTTP {status}: {said}"


def no_answer(url: str, error: Exception) -> ServerFailedError:
    """The error for a server that cannot be reached."""
    reason = str(error) or type(error).__name__
    return ServerFailedError(
        f"no server answers at {url} ({reason}); start one with `quire serve MODEL`, or name another "
        "address"
    )


def headers(api_key: str | None) -> dict[str, str]:
    """The headers that carry a key. Raises ServerFailedError for one that no header can hold."""
    if not api_key:
        return {}
    if not api_key.isascii() or not api_key.isprintable():
        raise ServerFailedError("the API key has characters that an HTTP header cannot hold")
    return {"Authorization": f"Bearer {api_key}"}


def is_local(url: str) -> bool:
    """Whether the address is this machine's own, which proxies of the environment do not reach."""
    host = urlsplit(url).hostname or ""
    return host == "localhost" or host == "::1" or host.startswith("127.")


def first_model(listing: Any, url: str) -> dict[str, Any]:
    """The first card of an answer of /v1/models. Raises ServerFailedError if there is none."""
    cards = listing.get("data") if isinstance(listing, dict) else None
    if not cards or not isinstance(cards[0], dict) or not isinstance(cards[0].get("id"), str):
        raise ServerFailedError(f"{url} lists no model; name one")
    card: dict[str, Any] = cards[0]
    return card
