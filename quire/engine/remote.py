"""An engine in a process of its own, over ZeroMQ; started again if it dies, with the live requests.

One life of it is `engine.link`, who may run after a death `engine.supervision`, what is kept of a request
`engine.replay`.
"""

from __future__ import annotations

import itertools
import logging
import queue
import threading
import time
from dataclasses import replace
from typing import Any

import msgspec
import zmq

from quire.config.schema import Settings, SupervisionConfig
from quire.engine.child import EarlyChild, new_folder, started
from quire.engine.interface import EngineClient, OnDeath, OnOutputs
from quire.engine.link import Link
from quire.engine.replay import Live, Roster, RunningStats
from quire.engine.resolve import resolve
from quire.engine.supervision import Court, Death, Restarts
from quire.hardware.cpu import read_machine
from quire.protocol import wire
from quire.protocol.errors import (
    EngineDeadError,
    InvalidRequestError,
    ModelLoadError,
    QuireError,
    RequestFailedError,
    SettingsError,
)
from quire.protocol.outputs import EngineInfo, EngineOutputs, SequenceUpdate
from quire.protocol.request import EngineRequest

logger = logging.getLogger(__name__)

_CALL_TIMEOUT_S = 60.0
_HEARD_LOOK_S = 0.002  # between looks for the second connection of an engine that is ready
_HOLDING = ("pause", "hold_new")
_DEATH_KINDS: dict[str, type[QuireError]] = {"settings": SettingsError, "load": ModelLoadError}
_GUILTY = "the engine process ended while it computed this request alone; its like is refused for ten minutes"


def _check(supervision: SupervisionConfig) -> None:
    """Raises SettingsError for limits that mean nothing."""
    for flag, value in (
        ("--engine-restarts", supervision.engine_restarts),
        ("--engine-stall-timeout", supervision.engine_stall_timeout),
    ):
        if not value >= 0:
            raise SettingsError(f"{flag} is {value:g}; it must be 0 or more")


class ProcessClient(EngineClient):
    """The engine in a process of its own: a child that ends when this process does.

    If it dies or stands still, another one is started and the live requests go on where they were:
    from their prompts and every token id that was received. Its death is final, and told, only if it
    never served, or died too often.
    """

    def __init__(self, settings: Settings, early: EarlyChild | None = None) -> None:
        """`early` is taken as the first process if it was started with these settings."""
        _check(settings.supervision)
        super().__init__(settings)
        taken = early.take(self.settings) if early is not None else None
        if taken is None:
            # What cannot work is told before a process is started for it.
            resolve(self.settings, self.description, read_machine(), with_front=True)
        self._folder, child = taken or (new_folder(), None)
        self._context = zmq.Context()
        self._lock = threading.Lock()
        self._roster = Roster()
        self._court = Court(self._roster)
        self._restarts = Restarts(settings.supervision.engine_restarts)
        self._lives = itertools.count()
        self._numbers = itertools.count(1)
        self._calls: dict[int, tuple[wire.Call, queue.SimpleQueue[wire.Reply]]] = {}
        self._standing: list[str] = []
        self._news: queue.SimpleQueue[EngineOutputs | None] = queue.SimpleQueue()
        self._counts = RunningStats()
        self._ready = threading.Event()
        self._serves = False
        self._death: Death | None = None
        self._stopping = False
        self._on_outputs: OnOutputs | None = None
        self._on_death: OnDeath | None = None
        number = next(self._lives)
        child = child or started(self._folder.name, number, self.settings)
        self._link = Link(self._context, child)
        self._reader = threading.Thread(target=self._read, name="quire-engine-reader", daemon=True)
        self._reader.start()

    def _new_link(self, settings: Settings) -> Link:
        return Link(self._context, started(self._folder.name, next(self._lives), settings))

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._link.pid

    @property
    def is_ready(self) -> bool:
        return self._serves

    # The reader's thread.

    def _read(self) -> None:
        while not self._stopping:
            message = self._link.receive()
            if message is not None:
                self._take(message)
            elif (death := self._link.death()) is not None and not self._restart(death):
                return
            elif self._serves:
                self._watch()

    def _watch(self) -> None:
        timeout_s = self.settings.supervision.engine_stall_timeout
        if timeout_s <= 0 or self._calls:  # a call may take long, and is bounded itself
            self._link.rest()
        else:
            self._link.watch(timeout_s)

    def _take(self, message: wire.FromEngine) -> None:
        if isinstance(message, wire.Outputs):
            self._take_outputs(message.outputs)
        elif isinstance(message, wire.Reply):
            with self._lock:
                _, waiting = self._calls.pop(message.number, (None, None))
            if waiting is not None:
                waiting.put(message)
        elif isinstance(message, wire.Phase):
            self.phase = (message.text, message.percent)
        elif isinstance(message, wire.Ready):
            self._wait_until_heard()
            self._begin(message.info)

    def _wait_until_heard(self) -> None:
        while not self._stopping:
            with self._lock:
                if self._link.is_heard():
                    return
            time.sleep(_HEARD_LOOK_S)

    def _take_outputs(self, outputs: EngineOutputs) -> None:
        with self._lock:
            updates = self._roster.take(outputs)
            if self._court.is_sitting:
                self._follow_court()
            stats = self._counts.add(outputs.stats)
        self._tell(EngineOutputs(updates=updates, stats=stats, at_s=outputs.at_s))

    def _tell(self, outputs: EngineOutputs) -> None:
        if self._on_outputs is not None:
            self._on_outputs(outputs)
        else:
            self._news.put(outputs)

    def _begin(self, info: EngineInfo) -> None:
        """The engine can serve: it gets the requests and calls that wait."""
        failed: list[SequenceUpdate] = []
        with self._lock:
            if self._info is not None and self._info.fingerprint != info.fingerprint:
                failed = self._give_up_begun(info.fingerprint)
            self._info = info
            self._serves = True
            self._link.rest()
            for name in self._standing:
                self._link.send(wire.Call(next(self._numbers), name))
            self._court.open()
            self._follow_court()
            for call, _ in self._calls.values():
                self._link.send(call)
        if self._counts.now.restarts:
            logger.warning("a new engine serves")
        self.phase = ("ready", 100)
        self._ready.set()
        if failed:
            self._tell_of(failed)

    def _give_up_begun(self, fingerprint: str) -> list[SequenceUpdate]:
        """Ends what another arithmetic has begun; under the lock."""
        logger.error("the new engine computes otherwise than the one before: %s", fingerprint)
        error = "the engine was started again and computes otherwise now; ask again"
        begun = [live for live in self._roster.live.values() if live.num_received]
        return [update for live in begun for update in self._end_with(live, error)]

    def _end_with(self, live: Live, error: str) -> list[SequenceUpdate]:
        name = live.request.request_id
        updates = [
            SequenceUpdate(request_id=name, index=index, finish_reason="error", error=error)
            for index in sorted(live.open)
        ]
        self._roster.end(name)
        return updates

    def _tell_of(self, updates: list[SequenceUpdate]) -> None:
        """News that come from no engine."""
        self._tell(EngineOutputs(updates=updates, stats=self._counts.now, at_s=time.monotonic()))

    def _follow_court(self) -> None:
        """Takes requests back from the engine, and hands over those whose turn it is; under the lock."""
        recalled, sent = self._court.turn()
        for live in recalled:
            self._link.send(wire.Abort(self._roster.recall(live)))
        for live in sent:
            self._send(live)

    def _send(self, live: Live) -> None:
        request, ended = self._roster.send(live)
        self._link.send(wire.Add(request))
        for index in ended:
            self._link.send(wire.Abort(request.request_id, index))

    def _restart(self, death: Death) -> bool:
        """Starts another engine. False if this one's death is final."""
        failed: list[SequenceUpdate] = []
        with self._lock:
            if self._stopping:
                return False
            self._serves = False
            is_final = self._info is None or not self._restarts.take()
        if is_final:
            self._die(death)
            return False
        with self._lock:
            guilty = self._court.charge(death)
            if guilty is not None:
                failed = self._end_with(guilty, _GUILTY)
            logger.error(
                "%s; starting another, %d requests wait", death.text, len(self._roster.live)
            )
            self.phase = ("restarting", -1)
            self._link.close()
            if not self._stopping:
                self._link = self._new_link(self._as_it_was(self.info))
            self._counts.restart()
        self._tell_of(failed)
        return True

    def _as_it_was(self, info: EngineInfo) -> Settings:
        """The settings with what the first engine chose by the memory that it found, and quiet."""
        settings = replace(self.settings, load=replace(self.settings.load, use_tqdm_on_load=False))
        cache = settings.cache
        if cache.kv_cache_memory_bytes is not None or cache.num_gpu_blocks_override is not None:
            return settings
        return replace(settings, cache=replace(cache, num_gpu_blocks_override=info.num_blocks))

    def _die(self, death: Death) -> None:
        """For good."""
        limit = self.settings.supervision.engine_restarts
        if self._info is not None and limit:
            text = (
                f"{death.text}; it was started {limit} times again within ten minutes, and that is "
                "enough (--engine-restarts)"
            )
            death = Death(text, death.kind)
        with self._lock:
            self._death = death
            calls, self._calls = self._calls, {}
        self._ready.set()
        self._news.put(None)
        for number, (_, waiting) in calls.items():
            waiting.put(wire.Reply(number, error=death.text))
        if self._on_death is not None:
            self._on_death(death.text)

    # What others call.

    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        if not self._ready.wait(timeout_s):
            raise EngineDeadError(
                f"the engine was not ready after {timeout_s} s; it was at: {self.phase[0]}"
            )
        if self._info is None:
            assert self._death is not None
            raise _DEATH_KINDS.get(self._death.kind, EngineDeadError)(self._death.text)
        return self._info

    def add(self, request: EngineRequest) -> None:
        """As declared; while there is no engine the request waits for the next one.

        Raises EngineDeadError if there will be none, RequestFailedError for the like of a request that
        killed one, and InvalidRequestError for what an engine could not read.
        """
        _check_readable(request)
        with self._lock:
            self._check_alive()
            live = self._roster.add(request)
            try:
                self._court.check(live)
            except RequestFailedError:
                self._roster.end(request.request_id)
                raise
            if self._serves and self._court.is_sitting:
                self._follow_court()
            elif self._serves:
                self._send(live)

    def _check_alive(self) -> None:
        if self._death is not None:
            raise EngineDeadError(self._death.text)

    def abort(self, request_id: str, index: int | None = None) -> None:
        with self._lock:
            self._check_alive()
            live = self._roster.live.get(request_id)
            sent_as = live.sent_as if live is not None else None
            self._roster.end(request_id, index)
            if sent_as is not None:
                self._link.send(wire.Abort(sent_as, index))
            if self._serves and self._court.is_sitting:
                self._follow_court()

    def step(self) -> EngineOutputs | None:
        """The next message that carries news; None when the engine says that it is idle."""
        while True:
            try:
                return self._checked(self._news.get(timeout=0.2))
            except queue.Empty:
                if not self.call("has_work") and self._news.empty() and not self._roster.live:
                    return None

    def _checked(self, outputs: EngineOutputs | None) -> EngineOutputs:
        if outputs is None:
            assert self._death is not None
            raise EngineDeadError(self._death.text)
        return outputs

    def start(self, on_outputs: OnOutputs, on_death: OnDeath) -> None:
        self._on_outputs = on_outputs
        self._on_death = on_death
        if self._death is not None:
            on_death(self._death.text)

    def call(self, name: str) -> Any:
        waiting: queue.SimpleQueue[wire.Reply] = queue.SimpleQueue()
        with self._lock:
            self._check_alive()
            call = wire.Call(next(self._numbers), name)
            self._calls[call.number] = (call, waiting)
            self._note_standing(name)
            if self._serves:
                self._link.send(call)
        try:
            reply = waiting.get(timeout=_CALL_TIMEOUT_S)
        except queue.Empty:
            self._calls.pop(call.number, None)
            raise EngineDeadError(
                f"the engine did not answer {name!r} in {_CALL_TIMEOUT_S:.0f} s"
            ) from None
        if reply.error is not None:
            raise (
                EngineDeadError(reply.error) if self._death is not None else ValueError(reply.error)
            )
        return reply.value

    def _note_standing(self, name: str) -> None:
        """A new engine is held as the one before it was."""
        if name in _HOLDING:
            self._standing.append(name)
        elif name == "resume":
            self._standing = []

    def shutdown(self, timeout_s: float = 5.0) -> None:
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            told = self._death is None and self._link.send(wire.Stop())
        if told:
            self._link.end(timeout_s)
        else:
            self._link.kill()
        if self._reader is not threading.current_thread():
            self._reader.join(timeout_s)
        with self._lock:
            self._link.close()
        self._context.term()
        self._folder.cleanup()


def _check_readable(request: EngineRequest) -> None:
    """Refuses a request that cannot be sent, or that would end the engine that reads it."""
    try:
        wire.decode_to_engine(wire.encode(wire.Add(request)))
    except (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidRequestError(f"the request holds what no engine can read: {error}") from None
