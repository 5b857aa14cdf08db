"""The loop of an engine in its own process: takes messages, steps, sends news; ends with its parent.

Started by `engine.process`; planning and stepping are `engine.core`'s.
"""

from __future__ import annotations

import gc
import importlib
import logging
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import zmq

from quire.config import env
from quire.config.plugins import has_own_code
from quire.config.schema import Settings
from quire.engine.ahead import pack_ahead
from quire.engine.record import OPERATIONS_OFFSET, Memory, RecordWriter
from quire.engine.resolve import describe_model, resolve
from quire.hardware import pulse
from quire.hardware.cpu import read_machine
from quire.hardware.torch_import import import_lean
from quire.hardware.turns import USUAL_NS, ask_for_turns
from quire.protocol import wire
from quire.protocol.errors import ModelLoadError, SettingsError

logger = logging.getLogger(__name__)

COLLECT_AFTER = 50_000  # objects; the default of 700 is reached several times a step
_LINGER_MS, _LAST_WORDS_MS = 1_000, 30_000
"""How long what was sent may wait for a front to take it: at a usual end, and where it is the reason of the end, as
a front that started the engine first may still be importing its libraries."""
_RECONNECT_MS = 10  # a front that started the engine first binds its sockets later
_IDLE_POLL_MS = 500  # how often an idle engine looks whether its parent is still there


class _Engine:
    """The loop around one core. `parent` is the process that must stay alive."""

    def __init__(
        self,
        inbox: zmq.Socket[bytes],
        outbox: zmq.Socket[bytes],
        record: RecordWriter,
        parent: int,
    ) -> None:
        self._inbox = inbox
        self._outbox = outbox
        self._record = record
        self._parent = parent
        self._stopping = self._is_tidy = False

    def send(self, message: wire.FromEngine) -> None:
        self._outbox.send(wire.encode(message))

    def run(self, settings: Settings) -> None:
        self.send(wire.Phase("reading the model's description"))
        description = describe_model(settings)
        resolved = resolve(settings, description, read_machine(), with_front=True)
        ahead = pack_ahead(resolved, description)
        self.send(wire.Phase("importing libraries"))
        is_ours = description.spec.program is None and not has_own_code(settings)
        if is_ours and resolved.device == "cpu":
            import_lean()
        core = importlib.import_module("quire.engine.core").EngineCore(
            settings,
            description,
            on_phase=lambda text, percent: self.send(wire.Phase(text, percent)),
            with_front=True,
            record=self._record,
            resolved=resolved,
            ahead=ahead,
        )
        core.warm_up()
        # What the model and the libraries hold stays for good: the collector need not walk it again,
        # and what a step makes has no cycles. A pass over the youngest took 0.1 ms of a step.
        gc.freeze()
        gc.set_threshold(COLLECT_AFTER, 20, 20)
        gc.enable()
        self.send(wire.Ready(core.info))
        try:
            while not self._stopping and os.getppid() == self._parent:
                self._record.turn()
                self._take_all(core)
                outputs = core.step()
                if outputs is not None:
                    self.send(wire.Outputs(outputs))
                elif not self._inbox.poll(_IDLE_POLL_MS):
                    self._tidy()
        finally:
            core.shutdown()

    def _tidy(self) -> None:
        """Collects what the start left, once, when there is nothing else to do: it takes 0.1 s."""
        if not self._is_tidy:
            self._is_tidy = True
            gc.unfreeze()
            gc.collect()
            gc.freeze()

    def _take_all(self, core: Any) -> None:
        while not self._stopping and self._inbox.poll(0):
            self._record.turn()
            self._take(core, wire.decode_to_engine(self._inbox.recv()))

    def _take(self, core: Any, message: wire.ToEngine) -> None:
        if isinstance(message, wire.Add):
            core.add(message.request)
        elif isinstance(message, wire.Abort):
            core.abort(message.request_id, message.index)
        elif isinstance(message, wire.Stop):
            self._stopping = True
        else:
            try:
                self.send(wire.Reply(message.number, core.call(message.name)))
            except ValueError as error:
                self.send(wire.Reply(message.number, error=str(error)))


def main(arguments: list[str]) -> int:
    """Runs an engine, once it is told which, until its parent says stop or dies. Returns the exit code."""
    ask_for_turns(USUAL_NS)  # the front's are short, and were inherited
    logging.basicConfig(
        level=env.log_level().upper(), format="%(levelname)s %(asctime)s engine: %(message)s"
    )
    descriptor, parent_text = arguments
    words = sys.stdin.buffer.read()
    if not words:  # nobody wants an engine
        return 0
    inbox_address, outbox_address, settings = msgspec.json.decode(
        words, type=tuple[str, str, Settings]
    )
    context = zmq.Context()
    inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
    for socket, address in ((inbox, inbox_address), (outbox, outbox_address)):
        socket.set_hwm(0)
        socket.setsockopt(zmq.RECONNECT_IVL, _RECONNECT_MS)
        socket.connect(address)
    memory = Memory(int(descriptor))
    pulse.place_in(memory.pages, OPERATIONS_OFFSET)
    parent = int(parent_text)
    engine = _Engine(inbox, outbox, RecordWriter(memory), parent)
    linger_ms = _LAST_WORDS_MS
    try:
        engine.run(settings)
        linger_ms = _LINGER_MS
        return 0
    except (SettingsError, ModelLoadError) as error:
        kind = "settings" if isinstance(error, SettingsError) else "load"
        engine.send(wire.Died(str(error), kind))
        return 1
    except Exception as error:
        logger.exception("the engine cannot go on")
        engine.send(wire.Died(f"the engine stopped: {type(error).__name__}: {error}"))
        return 1
    finally:
        context.destroy(linger=linger_ms if os.getppid() == parent else 0)
        if os.getppid() != parent:  # nobody else is left to do it
            shutil.rmtree(Path(inbox_address.removeprefix("ipc://")).parent, ignore_errors=True)
