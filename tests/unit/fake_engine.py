"""An engine client that answers by a rule, without a model: for the tests of the faces.

Sequence `index` of a prompt gets the tokens last prompt id + 1 + index, + 2 + index, … below VOCAB.
"""

from __future__ import annotations

import queue
import threading
from types import SimpleNamespace
from typing import Any

from quire.config.schema import Settings
from quire.engine.client import EngineClient, OnDeath, OnOutputs
from quire.protocol.errors import EngineDeadError
from quire.protocol.outputs import EngineInfo, EngineOutputs, EngineStats, SequenceUpdate
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest
from tests.checkpoints import VOCAB_SIZE

INFO = EngineInfo(
    max_model_len=64, max_num_seqs=8, max_num_batched_tokens=64, block_size=16, num_blocks=64,
    capacity_tokens=1024, cache_bytes=1, vocab_size=VOCAB_SIZE, dtype="float32", fingerprint="fake",
    enable_prefix_caching=True,
)  # fmt: skip


def tokens_of(prompt: list[int], count: int, index: int = 0) -> list[int]:
    """What the fake engine answers."""
    return [(prompt[-1] + 1 + index + place) % VOCAB_SIZE for place in range(count)]


class FakeClient(EngineClient):
    """Gives one token a step to every live sequence. `fail_on` is a prompt whose request gets an error."""

    def __init__(
        self, settings: Settings, folder: str, *, fail_on: list[int] | None = None
    ) -> None:
        self.settings = settings
        self.description: Any = SimpleNamespace(
            path=folder,
            eos_token_ids=(1,),
            generation_defaults={"temperature": 0.5},
            pooling=None,
            spec=SimpleNamespace(encoder=None),
        )
        self.phase = ("starting", -1)
        self._info = INFO
        self.fail_on = fail_on
        self.live: dict[str, EngineRequest] = {}
        self.given: dict[tuple[str, int], int] = {}
        self.aborted: list[tuple[str, int | None]] = []
        self.most_live = 0
        self.is_shut_down = False
        self.raises_in_step: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()
        self._lock = threading.RLock()
        self._work: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._on_death: OnDeath | None = None

    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        return INFO

    def add(self, request: EngineRequest) -> None:
        assert isinstance(request.params, SamplingParams)
        if self.is_shut_down:
            raise EngineDeadError("shut down")
        with self._lock:
            self.live[request.request_id] = request
            self.given |= {(request.request_id, index): 0 for index in range(request.params.n)}
            self.most_live = max(self.most_live, len(self.live))
        self._work.put("")

    def abort(self, request_id: str, index: int | None = None) -> None:
        with self._lock:
            self.aborted.append((request_id, index))
            ended = [key for key in self.given if key[0] == request_id and index in (None, key[1])]
            for key in ended:
                self._end(key)

    def _end(self, key: tuple[str, int]) -> None:
        del self.given[key]
        if not any(name == key[0] for name, _ in self.given):
            del self.live[key[0]]

    def step(self) -> EngineOutputs | None:
        if self.raises_in_step is not None:
            raise self.raises_in_step
        with self._lock:
            if not self.given:
                return None
            updates = [self._advance(key) for key in list(self.given)]
            return EngineOutputs(
                updates=updates, stats=EngineStats(num_running=len(self.live)), at_s=1.0
            )

    def _advance(self, key: tuple[str, int]) -> SequenceUpdate:
        request = self.live[key[0]]
        assert isinstance(request.params, SamplingParams)
        if request.prompt_token_ids == self.fail_on:
            self._end(key)
            return SequenceUpdate(
                request_id=key[0], index=key[1], finish_reason="error", error="it failed"
            )
        self.given[key] += 1
        count = self.given[key]
        token = tokens_of(request.prompt_token_ids, count, key[1])[-1]
        is_last = count == request.params.max_tokens
        if is_last:
            self._end(key)
        return SequenceUpdate(
            request_id=key[0],
            index=key[1],
            token_ids=[token],
            finish_reason="length" if is_last else None,
        )

    def start(self, on_outputs: OnOutputs, on_death: OnDeath) -> None:
        self._on_death = on_death

        def run() -> None:
            while self._work.get() is not None:
                while self.gate.wait() and not self.is_shut_down:
                    with self._lock:  # what is added after the gate was shut is not stepped
                        is_open = self.gate.is_set()
                        news = self.step() if is_open else None
                    if news is not None:
                        on_outputs(news)
                    elif is_open:
                        break

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def die(self, error: str) -> None:
        """What the reader's thread does when the engine process ends."""
        assert self._on_death is not None
        threading.Thread(target=self._on_death, args=(error,)).start()

    def call(self, name: str) -> Any:
        if name.endswith("_profile"):
            return "a-trace"
        assert name in ("reset_prefix_cache", "reset_running")
        return not self.live

    def shutdown(self, timeout_s: float = 5.0) -> None:
        self.is_shut_down = True
        self._work.put(None)
        self.gate.set()
