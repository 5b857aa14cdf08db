"""The store of responses: what goes in comes out, within bounds, across restarts and threads."""

from __future__ import annotations

import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from quire.protocol.errors import SettingsError
from quire.server.responses.store import ResponseStore, Stored


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def store(path: Path | None = None, **more: Any) -> ResponseStore:
    bounds = {"max_count": 100, "max_bytes": 1 << 20, "ttl_s": 60.0, **more}
    return ResponseStore(path, **bounds)


def one(name: str, *, previous: str | None = None, text: str = "hi", **more: Any) -> Stored:
    response = {"id": name, "status": "completed", "output": [{"type": "message", "text": text}]}
    return Stored(response=response, items=[{"type": "message"}], previous=previous, **more)


def test_a_file_outlives_its_server_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "kept.sqlite3"
    first = store(path)
    kept = one("resp_1", events=[b"event: a\n\n", b"\xff"], text="é\0")
    assert first.put(kept)
    first.close()
    assert store(path).get("resp_1") == kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_servers_may_share_a_file(tmp_path: Path) -> None:
    first, second = store(tmp_path / "a"), store(tmp_path / "a")
    first.put(one("resp_1"))
    second.put(one("resp_2"))
    assert second.get("resp_1") is not None and first.get("resp_2") is not None
    assert second.delete("resp_1") and not first.delete("resp_1")
    assert first.get("resp_1") is None


def test_the_least_recently_used_go_first() -> None:
    clock = Clock()
    table = store(max_count=3, clock=clock)
    for number in range(3):
        clock.now += 1
        table.put(one(f"resp_{number}"))
    clock.now += 1
    table.chain("resp_0")  # used again
    clock.now += 1
    table.put(one("resp_3"))
    found = [number for number in range(4) if table.get(f"resp_{number}")]
    assert found == [0, 2, 3]


def test_bytes_are_bounded() -> None:
    table = store(max_bytes=20_000)
    for number in range(40):
        table.put(one(f"resp_{number}", text="x" * 1000))
    kept = [number for number in range(40) if table.get(f"resp_{number}")]
    assert 10 <= len(kept) < 20 and kept[-1] == 39
    assert not table.put(one("resp_big", text="x" * 30_000))
    assert table.get("resp_big") is None and table.get("resp_39") is not None


def test_what_is_old_is_gone() -> None:
    clock = Clock()
    table = store(clock=clock, ttl_s=10.0)
    table.put(one("resp_1"))
    clock.now += 11
    assert table.get("resp_1") is None
    with pytest.raises(KeyError, match="resp_1"):
        table.chain("resp_1")


def test_a_chain_is_in_order_and_names_what_is_missing() -> None:
    table = store()
    table.put(one("resp_1"))
    table.put(one("resp_2", previous="resp_1"))
    table.put(one("resp_3", previous="resp_2"))
    assert [each.id for each in table.chain("resp_3")] == ["resp_1", "resp_2", "resp_3"]
    table.delete("resp_1")
    with pytest.raises(KeyError, match="resp_1"):
        table.chain("resp_3")
    table.put(
        one("resp_4", previous="resp_4")
    )  # cannot be made by a request; must end all the same
    with pytest.raises(KeyError):
        table.chain("resp_4")


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    table = store(tmp_path / "a", max_count=50)

    def work(name: int) -> None:
        for number in range(30):
            table.put(one(f"resp_{name}_{number}"))
            table.get(f"resp_{name}_{number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = [f"resp_{name}_{number}" for name in range(4) for number in range(30)]
    assert sum(table.get(name) is not None for name in names) == 50


def test_a_wrong_path_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("this is no database, and far too short to be one")
    with pytest.raises(SettingsError, match="responses-store"):
        store(tmp_path / "file")
    with pytest.raises(SettingsError, match="memory or none"):
        store(tmp_path / "file" / "below")
