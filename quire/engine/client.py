"""How a front reaches an engine: in the same process, or in its own over ZeroMQ.

The loop itself is `engine.core`; its process is `engine.process`. Importing this file loads no torch.
"""

from __future__ import annotations

import importlib
import itertools
import queue
import subprocess
import sys
import tempfile
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import msgspec
import zmq

from quire.config.schema import Settings
from quire.engine.resolve import describe_model, resolve
from quire.hardware.cpu import read_machine
from quire.hardware.threads import bound_waiting
from quire.models.loading.hub import with_local_folders
from quire.models.registry import ModelDescription
from quire.protocol import wire
from quire.protocol.errors import EngineDeadError, ModelLoadError, QuireError, SettingsError
from quire.protocol.outputs import EngineInfo, EngineOutputs
from quire.protocol.request import EngineRequest

OnOutputs = Callable[[EngineOutputs], None]
OnDeath = Callable[[str], None]

_CONNECT_LOOK_S = 0.01
_CALL_TIMEOUT_S = 60.0
_DEATH_KINDS: dict[str, type[QuireError]] = {"settings": SettingsError, "load": ModelLoadError}


class EngineClient(ABC):
    """One engine, wherever it runs. `description` is known at once, `info` from `wait_ready` on.

    Names on the hub become folders here, once, for the front and the engine: `settings` holds those.
    Use either `step` (one thread drives) or `start` (a background thread calls back), not both.
    """

    def __init__(self, settings: Settings) -> None:
        bound_waiting()
        self.settings = with_local_folders(settings)
        self.description: ModelDescription = describe_model(self.settings)
        self.phase: tuple[str, int] = ("starting", -1)
        self._info: EngineInfo | None = None

    @property
    def info(self) -> EngineInfo:
        if self._info is None:
            self.wait_ready()
        assert self._info is not None
        return self._info

    @property
    def is_ready(self) -> bool:
        return self._info is not None

    @abstractmethod
    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        """Blocks until the engine can serve. Raises SettingsError, ModelLoadError or EngineDeadError."""

    @abstractmethod
    def add(self, request: EngineRequest) -> None:
        """Hands over a request that `frontend.inputs` has checked."""

    @abstractmethod
    def abort(self, request_id: str, index: int | None = None) -> None:
        """Ends a request, or one of its sequences; its blocks return within a step."""

    @abstractmethod
    def step(self) -> EngineOutputs | None:
        """News of the next step; None when nothing is left to do."""

    @abstractmethod
    def start(self, on_outputs: OnOutputs, on_death: OnDeath) -> None:
        """Calls back from a thread of its own until `shutdown`."""

    @abstractmethod
    def call(self, name: str) -> Any:
        """Runs one of `engine.core.CALLS` in the engine and returns its value."""

    @abstractmethod
    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Ends the engine; may be called twice."""


class InProcessClient(EngineClient):
    """Engine and worker in the caller's process; arithmetic on the worker's one compute thread."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        # What cannot work is told before torch is imported for it.
        resolve(self.settings, self.description, read_machine())
        core = importlib.import_module("quire.engine.core")
        self._core = core.EngineCore(self.settings, self.description, on_phase=self._set_phase)
        self._info = self._core.info
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = False
        self._thread: threading.Thread | None = None

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
        self._stopping = True
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout_s)
        self._core.shutdown()


class ProcessClient(EngineClient):
    """The engine in a process of its own: a child that ends when this process does."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        # What cannot work is told before a process is started for it.
        resolve(self.settings, self.description, read_machine(), with_front=True)
        self._folder = tempfile.TemporaryDirectory(prefix="quire-")
        self._context = zmq.Context()
        self._to_engine = self._context.socket(zmq.PUSH)
        self._from_engine = self._context.socket(zmq.PULL)
        addresses = [f"ipc://{self._folder.name}/{name}" for name in ("in", "out")]
        for socket, address in zip((self._to_engine, self._from_engine), addresses, strict=True):
            socket.set_hwm(0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(address)
        self._send_lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._replies: dict[int, queue.SimpleQueue[wire.Reply]] = {}
        self._news: queue.SimpleQueue[EngineOutputs | None] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._death: tuple[str, str] | None = None
        self._stopping = False
        self._on_outputs: OnOutputs | None = None
        self._on_death: OnDeath | None = None
        # The settings travel as an argument, not pickled: the child imports no code of the caller's.
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "quire.engine.process",
                *addresses,
                msgspec.json.encode(self.settings).decode(),
            ],
            stdin=subprocess.DEVNULL,
        )
        self._reader = threading.Thread(target=self._read, name="quire-engine-reader", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    def _send(self, message: wire.ToEngine) -> None:
        """Sends, waiting while the engine is not connected yet. Raises EngineDeadError if it is gone:
        a plain send would wait for ever for a peer that died before the reader noticed."""
        raw = wire.encode(message)
        while not self._stopping:
            if self._death is not None:
                raise EngineDeadError(self._death[0])
            if self._try_send(raw):
                return
            if self._process.poll() is not None:
                raise EngineDeadError(self._end_of_process())
            time.sleep(_CONNECT_LOOK_S)

    def _try_send(self, raw: bytes) -> bool:
        """False if nobody is connected."""
        with self._send_lock:
            if not self._stopping:
                try:
                    self._to_engine.send(raw, zmq.NOBLOCK)
                except zmq.Again:
                    return False
        return True

    def _end_of_process(self) -> str:
        return f"the engine process ended with code {self._process.returncode}"

    def _read(self) -> None:
        poller = zmq.Poller()
        poller.register(self._from_engine, zmq.POLLIN)
        while not self._stopping:
            if poller.poll(200):
                self._take(wire.decode_from_engine(self._from_engine.recv()))
            elif self._process.poll() is not None and not self._stopping:
                self._die(self._end_of_process(), "internal")
            if self._death is not None:
                return

    def _take(self, message: wire.FromEngine) -> None:
        if isinstance(message, wire.Outputs):
            if self._on_outputs is not None:
                self._on_outputs(message.outputs)
            else:
                self._news.put(message.outputs)
        elif isinstance(message, wire.Reply):
            waiting = self._replies.pop(message.number, None)
            if waiting is not None:
                waiting.put(message)
        elif isinstance(message, wire.Phase):
            self.phase = (message.text, message.percent)
        elif isinstance(message, wire.Ready):
            self._info = message.info
            self.phase = ("ready", 100)
            self._ready.set()
        else:
            self._die(message.error, message.kind)

    def _die(self, error: str, kind: str) -> None:
        self._death = (error, kind)
        self._ready.set()
        self._news.put(None)
        for number in list(self._replies):
            self._replies.pop(number).put(wire.Reply(number, error=error))
        if self._on_death is not None:
            self._on_death(error)

    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        if not self._ready.wait(timeout_s):
            raise EngineDeadError(
                f"the engine was not ready after {timeout_s} s; it was at: {self.phase[0]}"
            )
        if self._info is None:
            assert self._death is not None
            error, kind = self._death
            raise _DEATH_KINDS.get(kind, EngineDeadError)(error)
        return self._info

    def add(self, request: EngineRequest) -> None:
        self._send(wire.Add(request))

    def abort(self, request_id: str, index: int | None = None) -> None:
        self._send(wire.Abort(request_id, index))

    def step(self) -> EngineOutputs | None:
        """The next message that carries news; None when the engine says that it is idle."""
        while True:
            try:
                return self._checked(self._news.get(timeout=0.2))
            except queue.Empty:
                if not self.call("has_work") and self._news.empty():
                    return None

    def _checked(self, outputs: EngineOutputs | None) -> EngineOutputs:
        if outputs is None:
            assert self._death is not None
            raise EngineDeadError(self._death[0])
        return outputs

    def start(self, on_outputs: OnOutputs, on_death: OnDeath) -> None:
        self._on_outputs = on_outputs
        self._on_death = on_death
        if self._death is not None:
            on_death(self._death[0])

    def call(self, name: str) -> Any:
        number = next(self._numbers)
        waiting: queue.SimpleQueue[wire.Reply] = queue.SimpleQueue()
        self._replies[number] = waiting
        self._send(wire.Call(number, name))
        try:
            reply = waiting.get(timeout=_CALL_TIMEOUT_S)
        except queue.Empty:
            raise EngineDeadError(
                f"the engine did not answer {name!r} in {_CALL_TIMEOUT_S:.0f} s"
            ) from None
        if reply.error is not None:
            raise (
                EngineDeadError(reply.error) if self._death is not None else ValueError(reply.error)
            )
        return reply.value

    def shutdown(self, timeout_s: float = 5.0) -> None:
        if self._stopping:
            return
        told = self._death is None and self._try_send(wire.encode(wire.Stop()))
        self._stopping = True
        if not told:
            self._process.kill()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not threading.current_thread():
            self._reader.join(timeout_s)
        with self._send_lock:
            self._to_engine.close()
            self._from_engine.close()
        self._context.term()
        self._folder.cleanup()


def make_client(settings: Settings, *, own_process: bool) -> EngineClient:
    """An engine in this process, or in its own. The latter returns at once; see `wait_ready`."""
    return ProcessClient(settings) if own_process else InProcessClient(settings)
