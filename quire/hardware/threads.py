"""The number of arithmetic threads: set here and nowhere else.

How many there should be is `engine.resolve`'s choice, from `hardware.cpu`.
"""

from __future__ import annotations


def set_threads(num_threads: int) -> None:
    """Makes every operation called from this thread use `num_threads` threads, this one included.

    OpenMP keeps the number per calling thread, so the compute thread itself must call this.
    Raises ValueError if `num_threads` is below 1.
    """
    if num_threads < 1:
        raise ValueError(f"the number of threads is {num_threads}; it must be at least 1")
    import torch

    torch.set_num_threads(num_threads)
