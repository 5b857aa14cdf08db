"""A small server of the OpenAI interface that answers by a rule, over a real socket.

It says the words of what it was asked, one event each; what it was sent is kept in `requests`.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeServer(ThreadingHTTPServer):
    """`pace_s` before each event; with `key`, requests without it are refused; `break_off` cuts streams.

    A text that begins with "refuse" gets a 400. `root` is the model's folder as /v1/models says.
    """

    daemon_threads = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.pace_s: float = settings.get("pace_s", 0.0)
        self.key: str | None = settings.get("key")
        self.root: str = settings.get("root", "/nowhere")
        self.break_off: bool = settings.get("break_off", False)
        self.models: list[str] = settings.get("models", ["fake-model"])
        self.requests: list[tuple[str, dict[str, Any], dict[str, str]]] = []

    @property
    def base(self) -> str:
        """The address without /v1."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        """The address with /v1."""
        return self.base + "/v1"


class _Answer(BaseHTTPRequestHandler):
    server: FakeServer

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        if self._is_refused():
            return
        cards = [{"id": name, "root": self.server.root} for name in self.server.models]
        self._send(200, {"object": "list", "data": cards})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])) or b"{}")
        heads = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.path, body, heads))
        if self._is_refused():
            return
        if self.path in ("/start_profile", "/stop_profile"):
            self._send(200, {"file": "a-trace"})
            return
        is_chat = self.path.endswith("/chat/completions")
        text = body["messages"][-1]["content"] if is_chat else body["prompt"]
        if text.startswith("refuse"):
            self._send(400, {"error": {"message": "refused as asked", "param": "prompt"}})
            return
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self._stream(is_chat, text.split()[: body.get("max_tokens", 1 << 30)])

    def _stream(self, is_chat: bool, words: list[str]) -> None:
        if is_chat:
            self._event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for word in words:
            time.sleep(self.server.pace_s)
            piece = {"delta": {"content": f"{word} "}} if is_chat else {"text": f"{word} "}
            self._event({"choices": [{"index": 0, "finish_reason": None, **piece}]})
        if self.server.break_off:
            return
        end: dict[str, Any] = {"delta": {}} if is_chat else {"text": ""}
        self._event({"choices": [{"index": 0, "finish_reason": "stop", **end}]})
        usage = {"prompt_tokens": 7, "completion_tokens": len(words)}
        self._event({"choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, content: dict[str, Any]) -> None:
        text = json.dumps(content, ensure_ascii=False)
        self.wfile.write(f"data: {text}\n\n".encode())
        self.wfile.flush()

    def _is_refused(self) -> bool:
        key = self.server.key
        if key is None or self.headers.get("authorization") == f"Bearer {key}":
            return False
        self._send(401, {"error": {"message": "the API key is missing or wrong"}})
        return True

    def _send(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def running(**settings: Any) -> Iterator[FakeServer]:
    """A server that answers until the end of the `with`."""
    with FakeServer(**settings) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
