"""Turns on a core: what was asked for is what the system has noted, and it goes to what a thread starts."""

from __future__ import annotations

import ctypes
import platform
import struct
import subprocess
import sys
import threading

import pytest

from quire.hardware.turns import SHORT_NS, USUAL_NS, ask_for_turns

_GET = {"x86_64": 315, "aarch64": 275}
_PROGRAM = (
    "from tests.unit.test_turns import turn_ns; from quire.hardware.turns import ask_for_turns;"
    "before = turn_ns(); ask_for_turns(0); print(before, turn_ns())"
)


def turn_ns() -> int:
    """The length that the system has for the calling thread."""
    found = ctypes.create_string_buffer(48)
    ctypes.CDLL(None).syscall(_GET[platform.machine()], 0, found, 48, 0)
    return int(struct.unpack("=IIQiIQQQ", found.raw)[5])


def test_short_turns_are_noted_inherited_and_given_back() -> None:
    seen: list[int | str] = []

    def ask() -> None:
        if not ask_for_turns(SHORT_NS) or turn_ns() == 0:
            return  # a system that knows no such thing
        seen.append(turn_ns())
        inner = threading.Thread(target=lambda: seen.append(turn_ns()))
        inner.start()
        inner.join()
        child = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True)
        seen.append(child.stdout or child.stderr)
        assert ask_for_turns(USUAL_NS)
        seen.append(turn_ns())

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    if not seen:
        pytest.skip("this system keeps no length of turns")
    usual_ns = seen[3]
    assert usual_ns != SHORT_NS
    assert seen == [SHORT_NS, SHORT_NS, f"{SHORT_NS} {usual_ns}\n", usual_ns]
