"""How much of the processors went to somebody else while an engine ran: other programs, or the host's other guests.

A figure taken beside another job says little; this number tells which ones were. Speed itself is `probe`'s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

_IDLE, _IOWAIT, _NUM_FIELDS = 3, 4, 8


def used_ticks(stat: str) -> int:
    """Clock ticks of all processors that were not idle, stolen ones included, from the text of /proc/stat.

    The time of guests, in the fields after the eighth, is already part of the first two.
    """
    fields = [int(word) for word in stat.splitlines()[0].split()[1 : _NUM_FIELDS + 1]]
    return sum(fields) - fields[_IDLE] - fields[_IOWAIT]


def group_of(stat: str) -> tuple[int, int]:
    """The process group, and the ticks of a process and its ended children, from /proc/PID/stat.

    The name of the program, in parentheses, may hold anything.
    """
    fields = stat.rpartition(")")[2].split()
    return int(fields[2]), sum(int(word) for word in fields[11:15])


def ticks_of_groups(groups: Iterable[int]) -> int:
    """Ticks of all processes of these groups that are alive."""
    wanted, total = set(groups), 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            group, ticks = group_of(path.read_text())
        except (OSError, ValueError, IndexError):
            continue  # ended while it was read
        total += ticks if group in wanted else 0
    return total


class Contention:
    """Watches from its making on; `share` is that of all processors which others had since then."""

    def __init__(self, groups: Iterable[int]) -> None:
        self._groups = [*groups, os.getpgrp()]
        self._start = self._now()

    def _now(self) -> tuple[float, int, int]:
        used = used_ticks(Path("/proc/stat").read_text())
        return time.monotonic(), used, ticks_of_groups(self._groups)

    def share(self) -> float:
        """Between 0 and 1. A tick is a hundredth of a second: over less than a second it is coarse."""
        then, now = self._start, self._now()
        num_ticks = (now[0] - then[0]) * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
        others = (now[1] - then[1]) - (now[2] - then[2])
        return min(1.0, max(0.0, others / max(num_ticks, 1.0)))


def wait_for_quiet(limit_s: float, most: float = 0.1, look_s: float = 1.0) -> None:
    """Returns when others take at most the share `most` of the processors, or after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        watch = Contention([])
        time.sleep(look_s)
        if watch.share() <= most:
            return


def wait_for_rest(group: int, limit_s: float, most: float = 0.1, look_s: float = 1.0) -> None:
    """Returns when the processes of `group` take at most the share `most` of the processors, or after `limit_s`.

    What an engine does by itself when it is loaded belongs to its start, not to the first pass.
    """
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        then, before = time.monotonic(), ticks_of_groups([group])
        time.sleep(look_s)
        num_ticks = (time.monotonic() - then) * os.sysconf("SC_CLK_TCK") * (os.cpu_count() or 1)
        if ticks_of_groups([group]) - before <= most * num_ticks:
            return
