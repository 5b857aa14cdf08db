"""The little memory that an engine process shares with its front: that it moves, and for whom.

It outlives a process that dies in the middle of a step. What follows from it is `engine.supervision`.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import sys
from array import array
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quire.protocol.step import StepPlan

_BYTES = 1 << 16
_LOOPS, _OPERATIONS, _COUNT, _NAMES = range(4)
"""Words of 64 bits: turns of the loop, operations, requests in the step, and the name of each."""
_MOST_NAMES = _BYTES // 8 - _NAMES
OPERATIONS_OFFSET = 8 * _OPERATIONS


def name_of(request_id: str) -> int:
    """The 64 bits by which a request is known in the record."""
    return int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest(), "little")


def new_memory() -> int:
    """A file descriptor of shared memory that no folder knows; the child inherits it."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("quire-engine")
    else:
        import tempfile

        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _BYTES)
    return descriptor


class Memory:
    """The shared memory as words; `close` gives it back."""

    def __init__(self, descriptor: int) -> None:
        self.pages = mmap.mmap(descriptor, _BYTES)
        self.words = memoryview(self.pages).cast("Q")

    def close(self) -> None:
        """The descriptor stays open."""
        self.words.release()
        self.pages.close()


class RecordReader:
    """The front's side."""

    def __init__(self, memory: Memory) -> None:
        self._words = memory.words

    def moved(self) -> int:
        """A number that changes whenever the engine has moved."""
        return self._words[_LOOPS] + self._words[_OPERATIONS]

    def in_step(self) -> set[int]:
        """Names of the requests that were in the step; empty between two steps."""
        count = self._words[_COUNT]
        return set(self._words[_NAMES : _NAMES + count])


class RecordWriter:
    """The engine's side. Costs under a microsecond a step while the rows stay the same."""

    def __init__(self, memory: Memory) -> None:
        self._words = memory.words
        self._names: dict[int, int] = {}
        self._flights: deque[list[int]] = deque()
        self._written: list[int] = []
        self._num_names = 0

    def turn(self) -> None:
        """The engine's loop goes round."""
        self._words[_LOOPS] += 1

    def begin(self, plan: StepPlan) -> None:
        """The plan goes to the worker."""
        for new in plan.new_rows:
            self._names[new.row] = name_of(new.request_id)
        self._flights.append(plan.rows)
        if plan.new_rows:
            self._written = []  # a row may have another request than before
        self._write()

    def end(self) -> None:
        """The oldest plan has come back."""
        self._flights.popleft()
        self._write()

    def _write(self) -> None:
        flights = self._flights
        if not flights:
            self._words[_COUNT] = 0
            return
        rows = flights[0] if len(flights) == 1 else sorted({row for one in flights for row in one})
        if rows != self._written:
            names = array("Q", sorted({self._names[row] for row in rows}))[:_MOST_NAMES]
            self._words[_COUNT] = 0
            self._words[_NAMES : _NAMES + len(names)] = memoryview(names)
            self._written = rows.copy()
            self._num_names = len(names)
        self._words[_COUNT] = self._num_names
