"""A process that is started before there is a client for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from quire.config.args import EngineArgs
from quire.engine.child import EarlyChild


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
