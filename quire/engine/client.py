"""How a front reaches an engine: in the same process, or in its own.

What they have in common is `engine.interface`, the other process `engine.remote`, the loop `engine.core`.
Importing this file loads no torch.
"""

from __future__ import annotations

import gc
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar
from weakref import WeakSet

from quire.config.schema import Settings
from quire.engine.ahead import pack_ahead
from quire.engine.child import EarlyChild
from quire.engine.interface import EngineClient, OnDeath, OnOutputs
from quire.engine.remote import ProcessClient
from quire.engine.resolve import resolve
from quire.hardware.cpu import read_machine
from quire.hardware.threads import bound_waiting
from quire.hardware.torch_libraries import load_ahead
from quire.protocol.outputs import EngineInfo, EngineOutputs
from quire.protocol.request import EngineRequest

__all__ = [
    "EngineClient",
    "InProcessClient",
    "OnDeath",
    "OnOutputs",
    "ProcessClient",
    "make_client",
]


class InProcessClient(EngineClient):
    """Engine and worker in the caller's process; arithmetic on the worker's one compute thread."""

    living: ClassVar[WeakSet[InProcessClient]] = WeakSet()
    """Those that have started and are not shut down."""

    def __init__(self, settings: Settings) -> None:
        bound_waiting()
        load_ahead()
        super().__init__(settings)
        with _collector_at_rest():
            self._core = self._loaded()
        self._info = self._core.info
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self.living.add(self)

    def _loaded(self) -> Any:
        # What cannot work is told before torch is imported for it.
        resolved = resolve(self.settings, self.description, read_machine())
        ahead = pack_ahead(resolved, self.description)
        core = importlib.import_module("quire.engine.core")
        return core.EngineCore(
            self.settings,
            self.description,
            on_phase=self._set_phase,
            resolved=resolved,
            ahead=ahead,
        )

    def _set_phase(self, text: str, percent: int) -> None:
        self.phase = (text, percent)

    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        assert self._info is not None
        return self._info

    def add(self, request: EngineRequest) -> None:
        with self._lock:
            self._core.add(request)
        self._wake.set()

    def abort(self, request_id: str, index: int | None = None) -> None:
        with self._lock:
            self._core.abort(request_id, index)
        self._wake.set()

    def step(self) -> EngineOutputs | None:
        with self._lock:
            outputs: EngineOutputs | None = self._core.step()
        return outputs

    def start(self, on_outputs: OnOutputs, on_death: OnDeath) -> None:
        self._thread = threading.Thread(
            target=self._run, args=(on_outputs, on_death), name="quire-engine", daemon=True
        )
        self._thread.start()

    def _run(self, on_outputs: OnOutputs, on_death: OnDeath) -> None:
        try:
            while not self._stopping:
                self._wake.clear()
                outputs = self.step()
                if outputs is not None:
                    on_outputs(outputs)
                else:
                    self._wake.wait(timeout=1.0)
        except Exception as error:
            on_death(f"the engine stopped: {type(error).__name__}: {error}")

    def call(self, name: str) -> Any:
        with self._lock:
            return self._core.call(name)

    def shutdown(self, timeout_s: float = 5.0) -> None:
        self.living.discard(self)
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._core.shutdown()


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Loads what is there to stay: the collector's passes over it took a tenth of a start."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def make_client(
    settings: Settings, *, own_process: bool, early: EarlyChild | None = None
) -> EngineClient:
    """An engine in this process, or in its own. The latter returns at once; see `wait_ready`.

    early  a process that was started for it before.
    """
    return ProcessClient(settings, early) if own_process else InProcessClient(settings)
