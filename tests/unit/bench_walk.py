"""Runs `quire bench` with nothing real behind it, and keeps what can be seen of a run.

Which flag shows where is the table of `test_bench_flags.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from quire.bench import hf, load, offline, startup
from quire.bench.datasets import Sample
from quire.cli.main import main
from quire.config.schema import Settings
from quire.protocol.request import EngineRequest
from tests.unit.fake_engine import FakeClient
from tests.unit.fake_server import FakeServer


@dataclass
class Seen:
    """What a run showed. `samples` are the prompts of the measurement itself, warm-ups too.

    engine    requests that reached the engine; hf: what Transformers was asked for.
    requests  (path, body, headers) as the server got them, in order of their ids.
    files     text of each file that was written, by its path below the run's folder.
    """

    code: int = -1
    out: str = ""
    err: str = ""
    samples: list[Sample] = field(default_factory=list)
    engine: list[EngineRequest] = field(default_factory=list)
    beams: list[int] = field(default_factory=list)
    hf: list[dict[str, Any]] = field(default_factory=list)
    requests: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    client: dict[str, Any] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    at_once: int | None = None
    starts: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    @property
    def lens(self) -> list[int]:
        """Tokens of each prompt."""
        return [len(one.ids) for one in self.samples]

    @property
    def made(self) -> set[int]:
        """The numbers of output tokens that were asked for."""
        return {one.output_len for one in self.samples}

    @property
    def texts(self) -> list[str | None]:
        """The prompts as text, where they have one."""
        return [one.text for one in self.samples]

    @property
    def path(self) -> str:
        return self.requests[0][0]

    @property
    def body(self) -> dict[str, Any]:
        return self.requests[0][1] if self.requests else {}

    @property
    def heads(self) -> dict[str, str]:
        return self.requests[0][2] if self.requests else {}

    @property
    def result(self) -> dict[str, Any]:
        """The only file that was written, read as JSON."""
        (text,) = self.files.values()
        found: dict[str, Any] = json.loads(text)
        return found


class Walk:
    """Makes runs in a folder of their own. Words may hold {base}, {port}, {model}, {chats} and {lines}."""

    def __init__(self, patch: pytest.MonkeyPatch, server: FakeServer, model: Path) -> None:
        self._patch = patch
        self._server = server
        self._model = model
        self._places = {
            "{base}": server.base,
            "{port}": str(server.server_address[1]),
            "{model}": str(model),
            "{chats}": str(model / "chats.json"),
            "{lines}": str(model / "lines.jsonl"),
        }

    def run(
        self, kind: str, words: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> Seen:
        """One run of `quire bench KIND`."""
        seen = Seen()
        self._watch(seen)
        self._patch.chdir(folder)
        self._server.requests.clear()
        filled = [self._places.get(word, word) for word in words]
        try:
            seen.code = main(["bench", kind, *filled])
        except SystemExit as ended:
            seen.code = int(str(ended.code))
        seen.out, seen.err = capsys.readouterr()
        seen.requests = sorted(
            self._server.requests, key=lambda one: one[2].get("x-request-id", "")
        )
        seen.files = {
            str(path.relative_to(folder)): path.read_text()
            for path in folder.rglob("*")
            if path.is_file()
        }
        return seen

    def _watch(self, seen: Seen) -> None:
        self._watch_load(seen)
        self._watch_llm(seen)
        self._watch_hf(seen)
        self._watch_starts(seen)

    def _watch_load(self, seen: Seen) -> None:
        send, make = _RUN_LOAD, _CLIENT

        async def run_load(
            client: Any, target: Any, samples: Any, times: Any, *, max_concurrency: Any, **more: Any
        ) -> Any:
            seen.samples += samples
            seen.times, seen.at_once = list(times), max_concurrency
            found = await send(
                client, target, samples, times, max_concurrency=max_concurrency, **more
            )
            return found

        def client(**settings: Any) -> httpx.AsyncClient:
            seen.client = settings
            return make(**settings)

        self._patch.setattr(load, "run_load", run_load)
        self._patch.setattr(httpx, "AsyncClient", client)

    def _watch_llm(self, seen: Seen) -> None:
        folder = str(self._model)

        class Client(FakeClient):
            def add(self, request: EngineRequest) -> None:
                seen.engine.append(request)
                assert request.params.max_tokens is not None  # type: ignore[union-attr]
                made = Sample(request.prompt_token_ids, None, request.params.max_tokens)  # type: ignore[union-attr]
                seen.samples.append(made)
                super().add(request)

        def make(settings: Settings, *, own_process: bool) -> FakeClient:
            return Client(settings, folder)

        def beams(llm: Any, samples: Any, width: int) -> float:
            seen.beams.append(width)
            return 1.0

        self._patch.setattr("quire.llm_engine.make_client", make)
        self._patch.setattr(offline, "timed_beams", beams)

    def _watch_hf(self, seen: Seen) -> None:
        class Model:
            dtype = "float32"

            def __init__(self, settings: Settings, threads: int, *, compiled: bool) -> None:
                self._about = {"compiled": compiled}

            def run(self, samples: list[Sample], at_once: int) -> tuple[float, list[list[int]]]:
                seen.hf.append(self._about | {"at_once": at_once, "count": len(samples)})
                return 1.0, [[1] * one.output_len for one in samples]

        self._patch.setattr(hf, "HfModel", Model)

    def _watch_starts(self, seen: Seen) -> None:
        class Watch:
            def __init__(self, server: Any, log: Any, begin_s: float, limit_s: float) -> None:
                self._limit_s = limit_s

            def follow(self, client: Any, *, ids_only: bool) -> startup.Start:
                seen.starts[-1] += f" {self._limit_s:g}"
                return startup.Start(1.0, [("starting", 1.0)], 2.0, 3.0)

        def start(command: list[str], *, env: dict[str, str], **_: Any) -> Any:
            is_cold = "quire-cold-" in env.get("QUIRE_CACHE_DIR", "")
            seen.starts.append("cold" if is_cold else "warm")
            nothing: Callable[..., None] = lambda *_: None  # noqa: E731
            return SimpleNamespace(terminate=nothing, wait=nothing)

        self._patch.setattr(startup, "_Watch", Watch)
        self._patch.setattr(startup.subprocess, "Popen", start)


_RUN_LOAD, _CLIENT = load.run_load, httpx.AsyncClient
