"""What the engine shows of its cache and requests: true cell by cell, and cheap."""

from __future__ import annotations

import base64
import time
from array import array
from typing import Any

from quire.engine.kvcache.view import cache_map, shown_blocks
from quire.engine.scheduler.view import MAX_REQUESTS, engine_view
from quire.protocol.engine_view import (
    CELL_CACHED,
    CELL_FREE,
    CELL_HELD,
    CELL_SHARED,
    MAX_CELLS,
    CacheMap,
    decode_view,
    encode_view,
)
from tests.unit.scheduler_driver import FULL, Driver, layout_of, window_group


def cells_of(found: CacheMap) -> list[int]:
    return list(array("H", base64.b64decode(found.cells)))


def view_of(driver: Driver) -> Any:
    return decode_view(encode_view(engine_view(driver.scheduler.places)))


def test_a_map_shows_who_holds_each_block() -> None:
    driver = Driver(max_num_seqs=4)
    driver.add("a", [1] * 20, max_tokens=30)  # three blocks of eight tokens
    driver.add("b", [2] * 9, max_tokens=30)  # two
    driver.step()
    view = view_of(driver)
    (found,) = view.caches
    cells = cells_of(found)
    assert (found.num_blocks, found.block_size, found.blocks_per_cell) == (256, 8, 1)
    for number, name in enumerate("ab"):
        (table,) = driver.scheduler.places.requests[name].sequences[0].tables
        assert [place for place, cell in enumerate(cells) if cell == CELL_HELD + number] == sorted(
            table
        )
    assert len(cells) - cells.count(CELL_FREE) == 5
    driver.run()


def test_ended_requests_leave_cached_blocks_behind() -> None:
    driver = Driver()
    driver.add("a", list(range(40)), max_tokens=2)
    driver.run()
    view = view_of(driver)
    cells = cells_of(view.caches[0])
    assert view.requests == [] and cells.count(CELL_CACHED) == 5
    assert set(cells) == {CELL_CACHED, CELL_FREE}
    assert driver.scheduler.reset_prefix_cache()
    assert set(cells_of(view_of(driver).caches[0])) == {CELL_FREE}


def test_a_shared_prefix_is_marked_once_for_all() -> None:
    driver = Driver()
    prefix = list(range(32))
    driver.add("first", [*prefix, 1], max_tokens=20)
    driver.step()
    for name in "abc":
        driver.add(name, [*prefix, 50 + ord(name)], max_tokens=20)
    driver.step()
    pool = driver.scheduler.places.cache.pool
    cells = cells_of(view_of(driver).caches[0])
    held = pool.held(0)
    for block, references in held.items():
        assert cells[block] >= CELL_HELD
        assert bool(cells[block] & CELL_SHARED) == (references > 1)
    assert sum(1 for cell in cells if cell & CELL_SHARED) == 4
    assert len(held) == sum(cell not in (CELL_FREE, CELL_CACHED) for cell in cells)
    driver.run()


def test_each_group_has_its_map_and_passed_blocks_are_free_again() -> None:
    layout = layout_of(FULL, window_group(16), slab_bytes=64, num_slabs=64)
    driver = Driver(
        layout, enable_prefix_caching=False, max_num_batched_tokens=32, max_model_len=256
    )
    driver.add("a", list(range(96)), max_tokens=8)
    for _ in range(5):
        driver.step()
    full, window = view_of(driver).caches
    assert (full.kind, window.kind) == ("full", "sliding_window")
    held = [sum(cell >= CELL_HELD for cell in cells_of(one)) for one in (full, window)]
    pool = driver.scheduler.places.cache.pool
    assert held == [len(pool.held(0)), len(pool.held(1))]
    assert held[0] > held[1] > 0
    driver.run()


def test_requests_are_told_with_their_progress() -> None:
    driver = Driver(max_num_seqs=2, max_num_batched_tokens=16)
    driver.add("a", list(range(24)), max_tokens=10, n=2)
    driver.add("b", [5, 6, 7], max_tokens=4)
    driver.step()
    first, second = view_of(driver).requests
    assert (first.number, first.state, first.sequences, first.prompt) == (0, "running", 2, 24)
    assert (first.computed, first.output, first.max_output) == (16, 0, 20)
    assert (second.number, second.state, second.computed) == (1, "waiting", 0)
    driver.run()


def test_the_list_of_requests_is_bounded() -> None:
    driver = Driver(max_num_seqs=4)
    for number in range(MAX_REQUESTS + 9):
        driver.add(str(number), [number, 1, 2], max_tokens=2)
    view = view_of(driver)
    assert (len(view.requests), view.more) == (MAX_REQUESTS, 9)
    driver.run()


def test_a_large_cache_is_shown_in_a_bounded_number_of_cells() -> None:
    assert [shown_blocks(used, 10_000) for used in (0, 256, 257, 9_000)] == [256, 256, 512, 10_000]
    assert shown_blocks(3, 100) == 100
    layout = layout_of(num_slabs=40_000)
    driver = Driver(layout, max_model_len=40_000, max_num_batched_tokens=40_000, max_num_seqs=8)
    for number in range(6):
        driver.add(str(number), [7, number] * 16_000, max_tokens=50)
        driver.step()
    (found,) = view_of(driver).caches
    cells = cells_of(found)
    assert found.blocks_per_cell == 8 and len(cells) <= MAX_CELLS
    assert {cell & ~CELL_SHARED for cell in cells if cell >= CELL_HELD} == {
        CELL_HELD + number for number in range(6)
    }
    shares = sum(cell >= CELL_HELD for cell in cells) * found.blocks_per_cell
    assert abs(shares - driver.scheduler.stats().blocks_in_use) < 0.1 * shares


def test_a_look_is_cheap_with_many_requests_that_share_a_long_prefix() -> None:
    driver = Driver(
        layout_of(num_slabs=8_192),
        max_num_seqs=256,
        max_num_batched_tokens=8_192,
        max_model_len=8_192,
    )
    prefix = list(range(4_000))
    for number in range(200):
        driver.add(str(number), [*prefix, number], max_tokens=50)
    for _ in range(3):
        driver.step()
    pool = driver.scheduler.places.cache.pool
    tables = [one.sequences[0].tables[0] for one in driver.scheduler.places.requests.values()]
    assert sum(map(len, tables)) > 90_000
    visits = 0

    class Counted(list[int]):
        def __reversed__(self) -> Any:
            nonlocal visits
            for block in list.__reversed__(self):
                visits += 1
                yield block

        def __getitem__(self, place: Any) -> Any:
            return Counted(super().__getitem__(place))

    cache_map(pool, 0, ((0, Counted(table)) for table in tables))
    assert visits <= pool.blocks_in_use + len(tables)
    began = time.process_time()
    for _ in range(10):
        engine_view(driver.scheduler.places)
    assert (time.process_time() - began) / 10 < 0.02  # about 1 ms; the rest is for loaded machines
