"""Pages of memory that are touched before they are used: as far as was said, and without harm to what is there."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from quire.engine.interface import EngineClient
from quire.ops.cpu import library
from quire.ops.cpu.pages import AHEAD_TOKENS, PagesAhead, pages_ahead
from tests.e2e.driver import engine

pytestmark = [
    pytest.mark.skipif(library.library() is None, reason="no native library here"),
    pytest.mark.skipif(sys.platform != "linux", reason="asks Linux which pages are there"),
]
MIB = 1 << 20


@pytest.fixture
def fresh() -> torch.Tensor:
    """16 MiB of which no page is there, nor huge ones."""
    mapped = mmap.mmap(-1, 16 * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    mapped.madvise(mmap.MADV_NOHUGEPAGE)
    return torch.frombuffer(mapped, dtype=torch.uint8)


def pages_there(memory: torch.Tensor) -> list[bool]:
    found = (ctypes.c_ubyte * (memory.numel() // mmap.PAGESIZE))()
    ctypes.CDLL(None).mincore(
        ctypes.c_void_p(memory.data_ptr()), ctypes.c_size_t(memory.numel()), found
    )
    return [bool(one & 1) for one in found]


def mib_there(memory: torch.Tensor, wanted: int) -> int:
    """How many MiB are there, in a row from the beginning, once they are as many as wanted or time is up."""
    deadline = time.monotonic() + 60
    while True:
        there = pages_there(memory)
        count = there.index(False) if False in there else len(there)
        assert not any(there[count:])
        if count * mmap.PAGESIZE >= wanted * MIB or time.monotonic() > deadline:
            return count * mmap.PAGESIZE // MIB
        time.sleep(0.01)


def made(memory: torch.Tensor, ahead: int = 2 * MIB) -> PagesAhead:
    native = library.library()
    assert native is not None
    return PagesAhead(memory, native.handle, ahead)


def test_pages_are_touched_as_far_ahead_as_was_said(fresh: torch.Tensor) -> None:
    assert mib_there(fresh, 0) == 0
    pages = made(fresh)
    assert mib_there(fresh, 2) == 2
    pages.use(3 * MIB)
    assert mib_there(fresh, 5) == 5
    pages.use(1 * MIB)  # less than before
    pages.use(15 * MIB)  # and no further than there is memory
    assert mib_there(fresh, 16) == 16
    assert not bool(fresh.any())
    pages.close()
    pages.close()
    pages.use(16 * MIB)


def test_it_rests_while_a_step_runs(fresh: torch.Tensor) -> None:
    pages = made(fresh)
    assert mib_there(fresh, 2) == 2
    pages.step(True)
    pages.use(8 * MIB)
    time.sleep(0.2)
    assert mib_there(fresh, 2) == 2
    pages.step(False)
    assert mib_there(fresh, 10) == 10
    pages.step(True)
    pages.use(12 * MIB)
    pages.close()  # and does not wait for the step
    assert mib_there(fresh, 10) == 10


def test_its_priority_is_that_of_others(fresh: torch.Tensor) -> None:
    """With a lower one on busy cores, faults in its hands kept the process from memory, and from its end for 25 s."""
    before = set(os.listdir("/proc/self/task"))
    pages = made(fresh)
    (own,) = set(os.listdir("/proc/self/task")) - before
    assert os.sched_getscheduler(int(own)) == os.sched_getscheduler(0)
    assert os.getpriority(os.PRIO_PROCESS, int(own)) == os.getpriority(os.PRIO_PROCESS, 0)
    pages.close()


def test_what_is_written_meanwhile_stays(fresh: torch.Tensor) -> None:
    pages = made(fresh, 16 * MIB)
    for start in range(0, 16 * MIB, MIB // 2):
        fresh[start : start + MIB // 2] = 7
    assert mib_there(fresh, 16) == 16
    pages.close()
    assert bool((fresh == 7).all())


def test_the_thread_ends_with_its_object(fresh: torch.Tensor) -> None:
    before = set(os.listdir("/proc/self/task"))
    pages = made(fresh)
    (own,) = set(os.listdir("/proc/self/task")) - before
    assert threading.active_count() == len(threading.enumerate())  # it is none of Python's
    del pages
    gc.collect()
    assert own not in os.listdir("/proc/self/task")


def test_a_fork_does_not_wait_for_a_thread_that_it_has_not(fresh: torch.Tensor) -> None:
    pages = made(fresh)
    child = os.fork()
    if not child:
        pages.close()
        os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    pages.use(4 * MIB)
    assert mib_there(fresh, 6) == 6
    pages.close()


def test_it_goes_by_tokens(fresh: torch.Tensor) -> None:
    few = pages_ahead(fresh, 1024)
    assert few is not None and mib_there(fresh, 4) == 4
    few.use(1 * MIB)
    assert mib_there(fresh, 5) == 5
    few.close()


def test_all_of_what_a_user_gave(fresh: torch.Tensor) -> None:
    whole = pages_ahead(fresh, 1024, takes_all=True)
    assert whole is not None and mib_there(fresh, 16) == 16
    whole.close()


def cache_of(client: EngineClient) -> torch.Tensor:
    return client._core.executor.worker.runner.memory.buffer.view(-1)  # type: ignore[attr-defined, no-any-return]


def test_a_cache_whose_size_was_given_is_there_soon(checkpoint: Callable[..., Path]) -> None:
    folder, token = checkpoint("llama"), 0
    with engine(folder, max_model_len=64, kv_cache_memory_bytes=64 * MIB) as client:
        memory, token = cache_of(client), client.info.cache_bytes // client.info.capacity_tokens
        assert memory.numel() == 64 * MIB and mib_there(memory, 64) == 64
    blocks = 64 * MIB // token // client.info.block_size
    with engine(
        folder, max_model_len=64, kv_cache_memory_bytes=None, num_gpu_blocks_override=blocks
    ) as client:
        memory = cache_of(client)
        wanted = AHEAD_TOKENS * token // MIB
        assert memory.numel() == 64 * MIB and wanted <= 8
        mib_there(memory, wanted)
        time.sleep(0.1)
        assert mib_there(memory, wanted) <= wanted + 2  # a huge page more
