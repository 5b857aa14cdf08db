"""How long a thread's turns on a core are: short ones come sooner.

How many threads there are is `hardware.threads`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

_NUMBERS = {"x86_64": 314, "aarch64": 274}
"""Of the system call sched_setattr. Source: syscalls(2), the tables of both machines."""
_ATTRIBUTES = "=IIQiIQQQ"
"""struct sched_attr in its first form: size, policy, flags, nice, priority, runtime, deadline, period."""
SHORT_NS, USUAL_NS = 100_000, 0
"""The shortest that is given; what the system sees fit."""


def ask_for_turns(turn_ns: int) -> bool:
    """Asks for turns of so many nanoseconds for the calling thread, and for all that it starts later.

    Its share of the cores stays what it was. A thread that sleeps much and asks for short turns gets a core
    when it wakes, and not when somebody's turn ends: beside two threads that compute on two cores,
    0.1 ms later in the median instead of 2.5 to 4 ms. Linux 6.12 and later do that; where it is not
    done, nothing changes, and False is returned.
    """
    number = _NUMBERS.get(platform.machine())
    if sys.platform != "linux" or number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    size = struct.calcsize(_ATTRIBUTES)
    attributes = struct.pack(_ATTRIBUTES, size, os.SCHED_OTHER, 0, nice, 0, turn_ns, 0, 0)
    return bool(ctypes.CDLL(None).syscall(number, 0, attributes, 0) == 0)
