"""A process that is started before there is a client for it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import zmq

from quire.config.args import EngineArgs
from quire.engine.child import Child, EarlyChild
from quire.engine.link import Link


def is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_one_that_nobody_takes_ends_with_the_block() -> None:
    settings = EngineArgs().to_settings()
    with pytest.raises(KeyError), EarlyChild(settings) as early:
        pid, folder = early._child.process.pid, early._folder
        assert folder is not None and is_there(pid)
        raise KeyError
    assert not is_there(pid) and not Path(folder.name).exists()


def test_it_is_taken_once_and_stays() -> None:
    settings = EngineArgs().to_settings()
    with EarlyChild(settings) as early:
        taken = early.take(settings)
        assert taken is not None and early.take(settings) is None
    folder, child = taken
    assert is_there(child.process.pid) and Path(folder.name).is_dir()
    child.process.kill()
    child.process.wait()
    os.close(child.descriptor)
    folder.cleanup()


def test_one_with_other_settings_is_ended() -> None:
    with EarlyChild(EngineArgs().to_settings()) as early:
        pid = early._child.process.pid
        assert early.take(EngineArgs(max_model_len=7).to_settings()) is None
        assert not is_there(pid)


def test_why_one_ended_reaches_a_front_that_comes_late(tmp_path: Path) -> None:
    settings = EngineArgs(model=str(tmp_path)).to_settings()  # there is no model in it
    child = Child(str(tmp_path), 0, settings)
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
