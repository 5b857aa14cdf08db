"""A process that is started before there is a client for it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest
import zmq

from quire.config.args import EngineArgs
from quire.config.schema import Settings
from quire.engine.child import Child, EarlyChild, started
from quire.engine.link import Link
from quire.engine.record import new_memory
from quire.engine.remote import ProcessClient
from quire.protocol import wire
from tests.unit.fake_engine import INFO


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_one_that_nobody_takes_ends_with_the_block() -> None:
    with pytest.raises(KeyError), EarlyChild() as early:
        early.begin(EngineArgs().to_settings())
        assert early._child is not None and early._folder is not None
        pid, folder = early._child.process.pid, early._folder.name
        assert is_there(pid) and Path(folder).exists()
        raise KeyError
    assert not is_there(pid) and not Path(folder).exists()


def test_it_is_taken_once_and_stays() -> None:
    settings = EngineArgs().to_settings()
    with EarlyChild() as early:
        early.begin(settings)
        taken = early.take(settings)
        assert taken is not None and early.take(settings) is None
    check_stays(*taken)


def test_one_that_has_not_begun_begins_when_it_is_taken() -> None:
    with EarlyChild() as early:
        taken = early.take(EngineArgs().to_settings())
    assert taken is not None and taken[1].addresses[0].startswith(f"ipc://{taken[0].name}/")
    check_stays(*taken)


def check_stays(folder: TemporaryDirectory[str], child: Child) -> None:
    assert is_there(child.process.pid) and Path(folder.name).is_dir()
    child.process.kill()
    child.process.wait()
    os.close(child.descriptor)
    folder.cleanup()


def test_one_with_other_settings_is_ended() -> None:
    with EarlyChild() as early:
        assert early._child is not None
        pid = early._child.process.pid
        early.begin(EngineArgs().to_settings())
        assert early.take(EngineArgs(max_model_len=7).to_settings()) is None
        assert not is_there(pid)


def test_one_whose_parent_ends_before_it_is_told_ends_too() -> None:
    code = "from quire.engine.child import Child; print(Child().process.pid, flush=True)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    end_s = time.monotonic() + 30
    while is_there(int(done.stdout)):
        assert time.monotonic() < end_s
        time.sleep(0.05)


def test_it_is_there_before_the_flags_are_read() -> None:
    code = "import sys, quire.cli.serve; print(*({'msgspec', 'quire.config.cli', 'tempfile'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not done.stdout.strip()


def test_why_one_ended_reaches_a_front_that_comes_late(tmp_path: Path) -> None:
    settings = EngineArgs(model=str(tmp_path)).to_settings()  # there is no model in it
    child = started(str(tmp_path), 0, settings)
    time.sleep(5.0)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link = Link(context, child)
    try:
        while (death := link.death()) is None:
            link.receive()
        assert death.kind == "load" and str(tmp_path) in death.text
    finally:
        link.kill()
        link.close()
        context.destroy(linger=0)


class Slow:
    """A process in whose name a thread speaks at once, and listens half a second later."""

    def __init__(self, folder: str) -> None:
        self.addresses = [f"ipc://{folder}/{name}" for name in ("in", "out")]
        self.descriptor = new_memory()
        self.process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        inbox, outbox = context.socket(zmq.PULL), context.socket(zmq.PUSH)
        outbox.connect(self.addresses[1])
        outbox.send(wire.encode(wire.Ready(INFO)))
        time.sleep(0.5)
        inbox.connect(self.addresses[0])
        while not isinstance(message := wire.decode_to_engine(inbox.recv()), wire.Stop):
            assert isinstance(message, wire.Call)
            outbox.send(wire.encode(wire.Reply(message.number, message.name)))
        self.process.kill()
        context.destroy(linger=0)


class Taken(EarlyChild):
    def __init__(self) -> None:
        self.folder = TemporaryDirectory(prefix="quire-")
        self.child = Slow(self.folder.name)

    def take(self, settings: Settings) -> tuple[TemporaryDirectory[str], Child]:
        return self.folder, cast(Child, self.child)  # it has what is used here


def test_one_that_speaks_before_it_hears_misses_nothing() -> None:
    """What was sent before its second connection was made was lost, and the first request with it."""
    early = Taken()
    client = ProcessClient(EngineArgs().to_settings(), early)
    try:
        client.wait_ready(30)
        assert client.call("has_work") == "has_work"
    finally:
        client.shutdown()
    early.child.thread.join(10)
    assert not early.child.thread.is_alive()
