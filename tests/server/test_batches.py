"""/v1/batches over a scripted engine: what runs, what fails, what is cancelled, and what goes on after a crash."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire.config.schema import SchedulerConfig, Settings
from quire.protocol.outputs import EngineStats
from quire.server.batches import jobs
from quire.server.batches.store import Store
from tests.server.scripted import Scripted, scripted, settings

Serve = Callable[..., Any]

ENDED = ("completed", "failed", "expired", "cancelled")


def line(name: str, **changes: Any) -> str:
    """A line that asks for three tokens."""
    body = {"model": "tiny", "prompt": "hi", "max_tokens": 3} | changes.pop("body", {})
    whole = {"custom_id": name, "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(whole | changes)


async def upload(server: Scripted, lines: list[str], purpose: str = "batch") -> str:
    data = "\n".join(lines).encode()
    answer = await server.http.post(
        "/v1/files", files={"file": ("in.jsonl", data)}, data={"purpose": purpose}
    )
    return str(answer.json()["id"])


async def create(server: Scripted, lines: list[str], **changes: Any) -> dict[str, Any]:
    body = {
        "input_file_id": await upload(server, lines),
        "endpoint": "/v1/completions",
        "completion_window": "24h",
    }
    answer = await server.http.post("/v1/batches", json=body | changes)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def until(
    server: Scripted, batch: dict[str, Any], states: tuple[str, ...] = ENDED
) -> dict[str, Any]:
    """The batch once it is in one of these states."""
    for _ in range(400):
        found = (await server.http.get(f"/v1/batches/{batch['id']}")).json()
        if found["status"] in states:
            return dict(found)
        await asyncio.sleep(0.01)
    raise AssertionError(found)


async def records(server: Scripted, file_id: str) -> list[dict[str, Any]]:
    text = (await server.http.get(f"/v1/files/{file_id}/content")).text
    return [json.loads(one) for one in text.splitlines()]


def run(serve: Serve, folder: Path, test: Callable[[Scripted], Any], **more: Any) -> None:
    """Runs a test, and lets the folder go at its end."""

    async def inside(server: Scripted) -> None:
        try:
            await test(server)
        finally:
            await server.app.state.batches.close()

    serve(inside, batch_dir=str(folder), **more)


def test_lines_run_and_faults_go_to_a_file_of_their_own(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        lines = [line(f"good-{number}") for number in range(20)]
        lines.insert(3, line("cold", body={"temperature": -1}))
        lines.insert(5, "")
        lines.insert(9, line("other", body={"model": "other"}))
        batch = await create(server, lines, metadata={"why": "test"})
        assert batch["object"] == "batch" and batch["status"] == "validating"
        done = await until(server, batch)
        assert done["status"] == "completed" and done["metadata"] == {"why": "test"}
        assert done["request_counts"] == {"total": 22, "completed": 20, "failed": 2}
        for name in ("in_progress_at", "finalizing_at", "completed_at"):
            assert batch["created_at"] <= done[name] <= time.time()
        assert done["expires_at"] == batch["created_at"] + 86400
        good = await records(server, done["output_file_id"])
        assert [one["custom_id"] for one in good] == [f"good-{number}" for number in range(20)]
        body = good[0]["response"]["body"]
        assert body["choices"][0]["finish_reason"] == "length" and good[0]["error"] is None
        assert len({one["id"] for one in good}) == 20
        bad = await records(server, done["error_file_id"])
        found = [(one["custom_id"], one["response"]["status_code"]) for one in bad]
        assert found == [("cold", 400), ("other", 404)]
        assert bad[0]["response"]["body"]["error"]["param"] == "temperature"
        listed = (await server.http.get("/v1/batches?limit=1")).json()
        assert [one["id"] for one in listed["data"]] == [batch["id"]] and not listed["has_more"]

    run(serve, tmp_path, test)


FAULTY = {
    "invalid_json_line": "{no",
    "invalid_custom_id": line("x", custom_id=7),
    "invalid_method": line("x", method="GET"),
    "invalid_url": line("x", url="http://elsewhere/"),
    "mismatched_url": line("x", url="/v1/chat/completions"),
    "invalid_body": line("x", body={"stream": True}),
    "invalid_body ": json.dumps({"custom_id": "x", "url": "/v1/completions"}),
    "invalid_body  ": line("x").replace('"hi"', '{"a":' * 5000 + "1" + "}" * 5000),
    "duplicate_custom_id": line("first"),
}


@pytest.mark.parametrize("code", FAULTY)
def test_a_file_with_a_fault_fails_before_anything_runs(
    serve: Serve, tmp_path: Path, code: str
) -> None:
    async def test(server: Scripted) -> None:
        done = await until(server, await create(server, [line("first"), FAULTY[code]]))
        assert done["status"] == "failed" and done["output_file_id"] is None
        (fault,) = done["errors"]["data"]
        assert (
            fault["code"] in (code.strip(), "invalid_json_line")
            and fault["line"] == 2
            and fault["message"]
        )
        assert not server.client.stats.steps

    run(serve, tmp_path, test)


def test_an_empty_file_fails(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        done = await until(server, await create(server, ["", " "]))
        assert done["errors"]["data"][0]["code"] == "empty_file"

    run(serve, tmp_path, test)


def test_requests_for_batches_that_cannot_be(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        good = {"input_file_id": await upload(server, [line("a")]), "endpoint": "/v1/completions"}
        other = await upload(server, [line("a")], "user_data")
        cases: list[tuple[dict[str, Any], str]] = [
            ({"endpoint": "/v1/files"}, "endpoint"),
            ({"endpoint": "/v1/embeddings/x"}, "endpoint"),
            ({"endpoint": "/pause"}, "endpoint"),
            ({"input_file_id": "file-none"}, "input_file_id"),
            ({"input_file_id": "../lock"}, "input_file_id"),
            ({"input_file_id": other}, "input_file_id"),
            ({"completion_window": "soon"}, "completion_window"),
            ({"completion_window": "9999d"}, "completion_window"),
            ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
            ({"metadata": {"a": 1}}, "metadata"),
            ({"output_expires_after": {"anchor": "x", "seconds": 3600}}, "output_expires_after"),
        ]
        for changes, param in cases:
            answer = await server.http.post("/v1/batches", json=good | changes)
            assert answer.status_code == 400, changes
            assert answer.json()["error"]["param"] == param, answer.text
        for path in ("batch_none", "batch_none/cancel"):
            method = "POST" if path.endswith("cancel") else "GET"
            answer = await server.http.request(method, f"/v1/batches/{path}")
            assert answer.status_code == 404 and answer.json()["error"]["param"] == "batch_id"

    run(serve, tmp_path, test)


def test_cancelling_keeps_what_has_run(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        lines = [line(f"r{number}") for number in range(6)]
        lines += [line("long", body={"max_tokens": 50, "ignore_eos": True})]
        server.client.gate.clear()
        batch = await create(server, lines)
        running = await until(server, batch, ("in_progress",))
        gone = await server.http.delete(f"/v1/files/{running['input_file_id']}")
        assert gone.status_code == 409
        while len(server.client.live) < 7:
            await asyncio.sleep(0.01)
        for _ in range(3):
            server.client.step_once()
        for _ in range(200):
            found = (await server.http.get(f"/v1/batches/{batch['id']}")).json()
            if found["request_counts"]["completed"] == 6:
                break
            await asyncio.sleep(0.01)
        answer = (await server.http.post(f"/v1/batches/{batch['id']}/cancel")).json()
        assert answer["status"] == "cancelling" and answer["cancelling_at"]
        done = await until(server, batch)
        assert done["status"] == "cancelled" and done["cancelled_at"]
        assert done["request_counts"] == {"total": 7, "completed": 6, "failed": 0}
        assert len(await records(server, done["output_file_id"])) == 6
        (left,) = await records(server, done["error_file_id"])
        assert left["custom_id"] == "long" and left["error"]["code"] == "batch_cancelled"
        again = await server.http.post(f"/v1/batches/{batch['id']}/cancel")
        assert again.status_code == 409
        server.client.gate.set()

    run(serve, tmp_path, test)


def test_a_batch_that_takes_too_long_expires(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        server.client.gate.clear()
        batch = await create(server, [line("a"), line("b")])
        await until(server, batch, ("in_progress",))
        server.app.state.batches._active.expires_at = int(time.time()) - 1
        done = await until(server, batch)
        assert done["status"] == "expired" and done["expired_at"]
        codes = [one["error"]["code"] for one in await records(server, done["error_file_id"])]
        assert codes == ["batch_expired"] * 2
        server.client.gate.set()

    run(serve, tmp_path, test)


def test_lines_give_way_to_live_requests(serve: Serve, tmp_path: Path) -> None:
    """Beside a live request at most a quarter of the places, and none while one waits."""

    async def test(server: Scripted) -> None:
        server.client.gate.clear()
        live = asyncio.create_task(server.post({"prompt": "live", "max_tokens": 3}))
        while not server.client.live:
            await asyncio.sleep(0.01)
        server.llm._stats = EngineStats(num_waiting=1)
        batch = await create(server, [line(f"r{number}") for number in range(8)])
        await until(server, batch, ("in_progress",))
        await asyncio.sleep(0.2)
        assert len(server.client.live) == 1
        server.llm._stats = EngineStats()
        for _ in range(100):
            await asyncio.sleep(0.01)
        assert len(server.client.live) == 1 + server.llm.info.max_num_seqs // 4
        server.client.gate.set()
        server.client.step_once()
        assert (await live).status_code == 200
        done = await until(server, batch)
        assert done["request_counts"]["completed"] == 8

    run(serve, tmp_path, test)


def test_a_batch_goes_on_after_a_crash_and_runs_no_line_twice(folder: Path, tmp_path: Path) -> None:
    async def first() -> str:
        async with scripted(folder, batch_dir=str(tmp_path), batch_concurrency=2) as server:
            lines = [line(f"r{number}") for number in range(10)]
            lines[4] = line("stuck", body={"max_tokens": 60, "ignore_eos": True})
            server.client.gate.clear()
            batch = await create(server, lines)
            found = await until(server, batch, ("in_progress",))
            while found["request_counts"]["completed"] < 4:
                if server.client.live:
                    server.client.step_once()
                await asyncio.sleep(0.01)
                found = (await server.http.get(f"/v1/batches/{batch['id']}")).json()
            # As after a kill: nothing is told to the store but that its lock is gone.
            server.app.state.batches._task.cancel()
            server.app.state.batches._store.close()
            server.client.gate.set()
            return str(batch["id"])

    async def second(batch_id: str) -> None:
        before = 4
        async with scripted(folder, batch_dir=str(tmp_path)) as server:
            asked: list[str] = []
            add = server.client.add
            server.client.add = lambda request: (asked.append(request.request_id), add(request))  # type: ignore[method-assign]
            server.app.state.batches.start()
            done = await until(server, {"id": batch_id})
            assert done["status"] == "completed"
            assert done["request_counts"] == {"total": 10, "completed": 10, "failed": 0}
            assert len(asked) == 10 - before
            good = await records(server, done["output_file_id"])
            names = [one["custom_id"] for one in good]
            assert names == ["stuck" if n == 4 else f"r{n}" for n in range(10)]
            await server.app.state.batches.close()

    asyncio.run(second(asyncio.run(first())))


def test_a_server_of_another_model_leaves_a_batch_alone(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with scripted(folder, batch_dir=str(tmp_path)) as server:
            server.client.gate.clear()
            batch = await create(server, [line("a")])
            await until(server, batch, ("in_progress",))
            await server.app.state.batches.close()
            server.client.gate.set()
        other = settings(served_model_name=["other"])
        async with scripted(folder, batch_dir=str(tmp_path), settings=other) as server:
            server.app.state.batches.start()
            await asyncio.sleep(0.2)
            found = (await server.http.get(f"/v1/batches/{batch['id']}")).json()
            assert found["status"] == "in_progress"
            await server.app.state.batches.close()

    asyncio.run(test())
    store = Store(tmp_path)
    assert store.next_open(["tiny"]) is not None and store.next_open(["other"]) is None
    store.close()


def test_lines_have_the_lowest_priority_where_there_are_priorities(
    serve: Serve, tmp_path: Path
) -> None:
    async def test(server: Scripted) -> None:
        server.client.gate.clear()
        batch = await create(server, [line("a")])
        while not server.client.live:
            await asyncio.sleep(0.01)
        (request,) = server.client.live.values()
        assert request.priority == 1_000_000
        server.client.gate.set()
        server.client.step_once()
        assert (await until(server, batch))["status"] == "completed"

    priorities = Settings(scheduler=SchedulerConfig(scheduling_policy="priority"))
    run(serve, tmp_path, test, settings=priorities)


def test_a_fault_of_the_server_ends_the_batch_and_no_other(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(server: Scripted) -> None:
        done_lines = Store.done_lines
        monkeypatch.setattr(Store, "done_lines", lambda *_: 1 / 0)
        done = await until(server, await create(server, [line("a")]))
        assert done["status"] == "failed" and done["errors"]["data"][0]["code"] == "internal_error"
        monkeypatch.setattr(Store, "done_lines", done_lines)
        assert (await until(server, await create(server, [line("a")])))["status"] == "completed"

    run(serve, tmp_path, test)


def test_a_store_that_fails_for_a_moment_is_tried_again(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "_IDLE_S", 0.02)
    next_open, failures = Store.next_open, [OSError("planted"), sqlite3.OperationalError("planted")]

    def fails_first(self: Store, names: list[str]) -> Any:
        if failures:
            raise failures.pop()
        return next_open(self, names)

    monkeypatch.setattr(Store, "next_open", fails_first)

    async def test(server: Scripted) -> None:
        batch = await until(server, await create(server, [line("a")]))
        assert batch["status"] == "completed" and not failures

    run(serve, tmp_path, test)
