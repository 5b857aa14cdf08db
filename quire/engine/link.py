"""One life of an engine process, from its front's side: its sockets, its record, and how it ended.

How it is started is `engine.child`; what follows from its end is `engine.client`'s business.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import zmq

from quire.engine.child import Child
from quire.engine.record import Memory, RecordReader
from quire.engine.supervision import Death
from quire.protocol import wire

logger = logging.getLogger(__name__)

_LOOK_MS = 200
_LAST_WORDS_MS, _FAREWELL_MS = 100, 2000
"""From the end of a process until what it sent is surely here: of one that was killed, and of one that ended by
itself and so has said why."""
_LEAVE_S = 5.0  # what an engine gets to end after it said that it cannot go on
_OWN_STALL_S = 1.0  # a watcher that was not run itself for so long has seen nothing


class Link:
    """Takes over an engine's process. `receive` and `death` are for one thread, `send` for any one at a time."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], child: Child) -> None:
        self._inbox = context.socket(zmq.PUSH)
        self._outbox = context.socket(zmq.PULL)
        for socket, address in zip((self._inbox, self._outbox), child.addresses, strict=True):
            socket.set_hwm(0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.bind(address)
        self._memory = Memory(child.descriptor)
        self._record = RecordReader(self._memory)
        self._num_oom_kills = _oom_kills()
        self._process = child.process
        os.close(child.descriptor)
        self._poller = zmq.Poller()
        self._poller.register(self._outbox, zmq.POLLIN)
        self._handle = _handle_of(self._process.pid)
        if self._handle is not None:
            self._poller.register(self._handle, zmq.POLLIN)
        self._said: wire.Died | None = None
        self._is_silent = False  # ended, and all was read
        self._stalled = False
        self._was_stopped = False
        self._moved = -1
        self._looked_s = self._moved_s = time.monotonic()

    @property
    def pid(self) -> int:
        """Process id of the engine."""
        return self._process.pid

    def is_heard(self) -> bool:
        """Whether what is sent reaches the engine, or it has ended. It connects for either way by itself, so that it
        may be heard before it hears."""
        return self._process.poll() is not None or bool(self._inbox.poll(0, zmq.POLLOUT))

    def send(self, message: wire.ToEngine) -> bool:
        """False if nobody is there to take it."""
        try:
            self._inbox.send(wire.encode(message), zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def receive(self) -> wire.FromEngine | None:
        """The next message; None after a while without one. What it said before its end comes still."""
        code = self._process.poll()
        has_ended = code is not None
        if code is not None:
            self._outbox.poll(_LAST_WORDS_MS if code < 0 or self._said else _FAREWELL_MS)
        else:
            self._poller.poll(_LOOK_MS)
        try:
            message: wire.FromEngine = wire.decode_from_engine(self._outbox.recv(zmq.NOBLOCK))
        except zmq.Again:
            self._is_silent = has_ended
            return None
        except msgspec.DecodeError as error:
            logger.error("a message that no engine of ours sends was passed over: %s", error)
            return None
        if isinstance(message, wire.Died):
            self._said = message
        return message

    def watch(self, timeout_s: float) -> None:
        """Kills an engine that has not moved for so long; to be called at least every second."""
        now_s = time.monotonic()
        moved = self._record.moved()
        if moved != self._moved or now_s - self._looked_s > _OWN_STALL_S:
            self._moved, self._moved_s = moved, now_s
        self._looked_s = now_s
        if now_s - self._moved_s >= timeout_s and self._process.poll() is None:
            self._stalled = True
            self._was_stopped = _is_stopped(self.pid)
            self._process.kill()

    def rest(self) -> None:
        """It need not move for the moment."""
        self._looked_s = self._moved_s = time.monotonic()

    def death(self) -> Death | None:
        """How the process ended, once it has and all it said was received; None before."""
        if self._said is None and not self._is_silent:
            return None
        self.end(_LEAVE_S)
        in_step = frozenset(self._record.in_step())
        if self._said is not None:
            return Death(self._said.error, self._said.kind, in_step)
        if self._stalled:
            return Death(
                "the engine did not move for too long and was killed",
                "internal",
                in_step,
                is_theirs=not self._was_stopped,
            )
        code = self._process.returncode
        # Only the kernel kills for what a process does, when memory runs out; it counts these.
        from_outside = (
            code in (-signal.SIGKILL, -signal.SIGTERM) and _oom_kills() == self._num_oom_kills
        )
        text = f"the engine process ended with code {code}"
        return Death(text, "internal", in_step, is_theirs=not from_outside)

    def end(self, timeout_s: float) -> None:
        """Waits for the process to end; kills it after so long."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """Gives everything back; the process must have ended."""
        self._inbox.close()
        self._outbox.close()
        self._memory.close()
        if self._handle is not None:
            os.close(self._handle)


def _handle_of(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends, where the system has such a thing."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return os.pidfd_open(pid)
    return None


def _oom_kills() -> int:
    """Processes that the kernel has killed for want of memory; 0 where it does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0


def _is_stopped(pid: int) -> bool:
    """Whether somebody has stopped the process with a signal, or a debugger holds it."""
    with contextlib.suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False
