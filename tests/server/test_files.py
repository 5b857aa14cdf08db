"""/v1/files: what is stored, what is refused, and that no client's name becomes a path."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from quire.server.batches.records import FileRecord
from quire.server.batches.store import Store, StoreBusyError
from tests.server.scripted import Scripted

Serve = Callable[..., Any]

EVIL = ["../../escape.txt", "/etc/cron.d/evil", "..\\..\\evil.txt", "a\x01b.txt", "x" * 4000]


async def upload(server: Scripted, data: bytes, **more: Any) -> httpx.Response:
    name = more.pop("name", "input.jsonl")
    fields = {"purpose": "batch"} | more.pop("fields", {})
    return await server.http.post("/v1/files", files={"file": (name, data)}, data=fields, **more)


def stored(folder: Path) -> list[str]:
    """Names of everything under the folder but the database and its lock."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return [p.name for p in found if not p.name.startswith(("batches.sqlite", "lock"))]


def test_a_file_comes_and_goes(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        data = bytes(range(256)) * 5000 + b"\r\n--not-the-boundary\r\n"
        made = (await upload(server, data)).json()
        assert made["object"] == "file" and made["bytes"] == len(data)
        assert made["filename"] == "input.jsonl" and made["purpose"] == "batch"
        assert made["expires_at"] is None and abs(made["created_at"] - time.time()) < 60
        assert (await server.http.get(f"/v1/files/{made['id']}")).json() == made
        content = await server.http.get(f"/v1/files/{made['id']}/content")
        assert content.content == data
        assert content.headers["x-content-type-options"] == "nosniff"
        listed = (await server.http.get("/v1/files")).json()
        assert listed["data"] == [made] and listed["has_more"] is False
        assert stored(tmp_path) == [made["id"]]
        gone = await server.http.delete(f"/v1/files/{made['id']}")
        assert gone.json() == {"id": made["id"], "object": "file", "deleted": True}
        for method in ("GET", "DELETE"):
            answer = await server.http.request(method, f"/v1/files/{made['id']}")
            assert answer.status_code == 404 and answer.json()["error"]["param"] == "file_id"
        assert stored(tmp_path) == []

    serve(test, batch_dir=str(tmp_path))


def test_a_clients_name_is_never_a_path(serve: Serve, tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b" / "spool"

    async def test(server: Scripted) -> None:
        for name in EVIL:
            made = await upload(server, b"{}", name=name)
            assert made.status_code == 200, made.text
            assert "/" not in made.json()["filename"] and len(made.json()["filename"]) <= 256
        assert len(stored(inner)) == len(EVIL) and stored(tmp_path) == stored(inner)
        for path in ("..%2f..%2fbatches.sqlite", "..", "%2fetc%2fpasswd", "file-" + "0" * 32):
            answer = await server.http.get(f"/v1/files/{path}/content")
            assert answer.status_code == 404, path

    serve(test, batch_dir=str(inner))
    assert all(path.stat().st_mode & 0o077 == 0 for path in (inner / "files").iterdir())


def test_files_over_the_limit_are_413_and_leave_nothing(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            for _ in range(100):
                yield b"x" * 1000

        announced = await upload(server, b"x" * 5000)
        headers = {"content-type": "multipart/form-data; boundary=B"}
        silent = await server.http.post("/v1/files", content=pieces(), headers=headers)
        for answer in (announced, silent):
            assert answer.status_code == 413, answer.text
            assert answer.json()["error"]["param"] == "file"
        assert stored(tmp_path) == []
        for _ in range(3):
            await upload(server, b"x" * 1000)
        full = await upload(server, b"x" * 1000)
        assert (
            full.status_code == 413 and "--max-stored-bytes" in full.text
        ) or "3000" in full.text
        assert len(stored(tmp_path)) == 3

    serve(test, batch_dir=str(tmp_path), max_file_bytes=4000, max_stored_bytes=3000)


BODIES = {
    "no parts": b"--B--\r\n",
    "not a form": b"hello",
    "cut": b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\nabc',
    "two files": (
        b'--B\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\na\r\n' * 2
    )
    + b"--B--\r\n",
    "long header": b"--B\r\nContent-Disposition: " + b"x" * 20_000 + b"\r\n\r\na\r\n--B--\r\n",
    "many parts": b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n' * 50 + b"--B--",
    "long field": b'--B\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + b"x" * 9000,
    "empty": b"",
}


@pytest.mark.parametrize("name", BODIES)
def test_forms_that_cannot_be_read_are_400(serve: Serve, tmp_path: Path, name: str) -> None:
    async def test(server: Scripted) -> None:
        headers = {"content-type": "multipart/form-data; boundary=B"}
        answer = await server.http.post("/v1/files", content=BODIES[name], headers=headers)
        assert answer.status_code == 400, answer.text
        assert stored(tmp_path) == []

    serve(test, batch_dir=str(tmp_path))


def test_what_else_is_refused(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        plain = await server.http.post("/v1/files", json={"purpose": "batch"})
        assert plain.status_code == 415
        wrong = await upload(server, b"{}", fields={"purpose": "mischief"})
        assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "purpose"
        for fields in (
            {"expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            {"expires_after[anchor]": "created_at", "expires_after[seconds]": "5"},
            {"expires_after[anchor]": "created_at"},
        ):
            answer = await upload(server, b"{}", fields=fields)
            assert answer.status_code == 400, fields
        for query in ("limit=0", "limit=x", "order=up", "after=file-none", "limit=99999999999"):
            assert (await server.http.get(f"/v1/files?{query}")).status_code == 400, query
        assert stored(tmp_path) == []

    serve(test, batch_dir=str(tmp_path))


def test_pages_and_purposes(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        ids = []
        for number in range(5):
            fields = {"purpose": "batch" if number % 2 else "user_data"}
            ids.append((await upload(server, b"{}", fields=fields)).json()["id"])
        first = (await server.http.get("/v1/files?limit=2")).json()
        assert [one["id"] for one in first["data"]] == ids[:2:-1] and first["has_more"]
        rest = (await server.http.get(f"/v1/files?after={first['last_id']}&limit=9")).json()
        assert [one["id"] for one in rest["data"]] == ids[2::-1] and not rest["has_more"]
        oldest = (await server.http.get("/v1/files?order=asc&purpose=batch")).json()
        assert [one["id"] for one in oldest["data"]] == ids[1::2]

    serve(test, batch_dir=str(tmp_path))


def test_keys_guard_files(serve: Serve, tmp_path: Path) -> None:
    async def test(server: Scripted) -> None:
        assert (await upload(server, b"{}")).status_code == 401
        assert (await server.http.get("/v1/files")).status_code == 401
        headers = {"authorization": "Bearer k"}
        assert (await upload(server, b"{}", headers=headers)).status_code == 200

    serve(test, batch_dir=str(tmp_path), api_key=["k"])


def test_a_folder_belongs_to_one_server(serve: Serve, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(StoreBusyError):
        Store(tmp_path)

    async def test(server: Scripted) -> None:
        answer = await server.http.get("/v1/files")
        assert answer.status_code == 503 and "--batch-dir" in answer.json()["error"]["message"]
        store.close()
        assert (await server.http.get("/v1/files")).status_code == 200

    serve(test, batch_dir=str(tmp_path))


def test_what_expired_or_was_cut_off_is_swept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    now = int(time.time())
    for name, expires_at in (("file-old", now - 1), ("file-new", now + 100)):
        store.path_of(name).write_bytes(b"x")
        store.add_file(
            FileRecord(
                id=name,
                bytes=1,
                created_at=now,
                filename="x",
                purpose="batch",
                expires_at=expires_at,
            )
        )
    assert store.file("file-old") is None and store.file("file-new") is not None
    store.sweep(time.time())
    assert stored(tmp_path) == ["file-new"]
    store.path_of("file-orphan").write_bytes(b"x")
    store.close()
    Store(tmp_path).close()
    assert stored(tmp_path) == ["file-new"]
