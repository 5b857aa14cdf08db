"""The number of arithmetic threads, and how they wait: set here and nowhere else.

How many there should be is `engine.resolve`'s choice, from `hardware.cpu`.
"""

from __future__ import annotations

from quire.config import env

_SPIN_COUNT = 1000
"""Turns an idle thread of libgomp waits before it sleeps. Its default of 300,000 burns milliseconds after
every operation, which are the other threads' where cores are shared: on two cores under load, 6 short
answers of a two-layer model took 35 s, with 10,000 turns 3.6 s, with 1,000 or fewer 1 to 2.5 s."""


def bound_waiting() -> None:
    """Makes arithmetic threads sleep soon when they have nothing to do; must come before torch is loaded.

    Holds for this process and the ones it starts. GOMP_SPINCOUNT or OMP_WAIT_POLICY given by the user
    stay as they are. Afterwards it does nothing: libgomp reads them once.
    """
    if not env.is_set("OMP_WAIT_POLICY"):
        env.set_default("GOMP_SPINCOUNT", str(_SPIN_COUNT))


def set_threads(num_threads: int) -> None:
    """Makes every operation called from this thread use `num_threads` threads, this one included.

    OpenMP keeps the number per calling thread, so the compute thread itself must call this.
    Raises ValueError if `num_threads` is below 1.
    """
    if num_threads < 1:
        raise ValueError(f"the number of threads is {num_threads}; it must be at least 1")
    import torch

    torch.set_num_threads(num_threads)
