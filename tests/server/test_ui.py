"""The built-in page over HTTP: its files, what browsers are told about them, and the snapshots it draws."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire.protocol.engine_view import CacheMap, EngineView, RequestView, encode_view
from quire.server.page import PATHS
from tests.server.scripted import Scripted

Serve = Callable[..., Any]
FOLDER = Path("quire/server/ui")
P = [70, 71, 72]

VIEW = EngineView(
    requests=[
        RequestView(
            number=3, state="running", sequences=1, prompt=3, computed=3, cached=0, output=1,
            max_output=9, blocks=1,
        )
    ],
    more=0,
    caches=[
        CacheMap(
            kind="full", num_blocks=64, block_size=16, blocks_per_cell=1,
            cells=base64.b64encode(bytes([5, 0, 1, 0, 0, 0])).decode(),
        )
    ],
)  # fmt: skip


def _shows(server: Scripted) -> list[str]:
    """Has the scripted engine answer when it is looked at; the calls are in the list."""
    calls: list[str] = []

    def call(name: str, *arguments: Any) -> str:
        calls.append(name)
        return encode_view(VIEW).decode()

    server.client.call = call  # type: ignore[method-assign]
    return calls


def test_the_page_and_each_of_its_files_come_with_a_strict_policy(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for path in PATHS:
            answer = await server.http.get(path)
            assert answer.status_code == 200, path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "script-src 'self'" in policy
            assert "unsafe" not in policy and "http" not in policy and "*" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert (await server.http.head(path)).content == b""
        assert (await server.http.get("/")).headers["content-type"].startswith("text/html")
        script = await server.http.get("/ui/main.js")
        assert script.headers["content-type"].startswith("text/javascript")
        assert (await server.http.post("/")).status_code == 405

    serve(test)


def test_an_unchanged_file_is_not_sent_again(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        first = await server.http.get("/ui/style.css")
        etag = first.headers["etag"]
        again = await server.http.get("/ui/style.css", headers={"if-none-match": etag})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == etag
        other = await server.http.get("/ui/style.css", headers={"if-none-match": '"other"'})
        assert other.status_code == 200 and other.content == first.content

    serve(test)


def test_everything_that_the_page_names_is_served_and_nothing_is_elsewhere() -> None:
    used = set()
    for path in sorted(FOLDER.iterdir()):
        text = path.read_text()
        hosts = set(re.findall(r"(?:https?:)?//([\w-]+(?:\.[\w-]+)+)", text)) - {"www.w3.org"}
        assert not hosts, f"{path} names {hosts}"
        used |= {f"/ui/{name}" for name in re.findall(r'(?:from "\./|"ui/)([\w.]+)"', text)}
    used -= {"/ui/live"}
    assert used == PATHS - {"/"}
    page = (FOLDER / "index.html").read_text()
    assert "<style" not in page and "style=" not in page and not re.search(r"\son\w+=", page)
    assert re.findall(r"<script(.*?)>(.*?)</script>", page) == [
        (' type="module" src="ui/main.js"', "")
    ]


@pytest.mark.parametrize(
    "word", ["innerHTML", "outerHTML", "insertAdjacentHTML", "eval(", "document.write"]
)
def test_nothing_that_a_model_says_can_become_markup(word: str) -> None:
    assert not [path for path in FOLDER.glob("*.js") if word in path.read_text()]


@pytest.mark.parametrize(
    "path",
    ["/ui/", "/ui/index.html/", "/ui/../page.py", "/ui/..%2fpage.py", "/ui/%2e%2e/app.py",
     "/ui//etc/passwd", "/ui/%00", "/ui/main.js%00.svg", "/ui/.", "/ui/nothing.js", "/ui/MAIN.js"],
)  # fmt: skip
def test_no_other_path_is_served(serve: Serve, path: str) -> None:
    async def test(server: Scripted) -> None:
        answer = await server.http.get(path)
        assert answer.status_code == 404, answer.text
        assert "error" in answer.json()

    serve(test)


def test_without_the_page_its_paths_are_not_there(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        for path in [*PATHS, "/ui/state", "/ui/live"]:
            assert (await server.http.get(path)).status_code == 404, path

    serve(test, ui=False)


def test_the_page_is_open_and_what_it_shows_needs_the_key(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        _shows(server)
        for path in PATHS:
            assert (await server.http.get(path)).status_code == 200
        for path in ("/ui/state", "/ui/live"):
            assert (await server.http.get(path)).status_code == 401
        key = {"authorization": "Bearer k"}
        assert (await server.http.get("/ui/state", headers=key)).status_code == 200

    serve(test, api_key=["k"])


def test_a_snapshot_has_the_engine_and_its_latencies(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        calls = _shows(server)
        await server.post({"prompt": P, "max_tokens": 4})
        assert calls == [], "the engine is asked only when somebody looks"
        answer = await server.http.get("/ui/state")
        assert answer.headers["cache-control"] == "no-store"
        found = answer.json()
        assert (found["model"], found["phase"]) == ("tiny", "ready")
        assert found["engine"]["requests"][0]["number"] == 3
        assert base64.b64decode(found["engine"]["caches"][0]["cells"])[0] == 5
        assert found["stats"]["steps"] == 4
        assert found["ttft"]["count"] == 1 and found["itl"]["count"] == 3
        assert found["itl"]["sum"] == pytest.approx(1.5)
        assert calls == ["engine_view"]

    serve(test)


def test_many_who_look_at_once_ask_the_engine_once(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        calls = _shows(server)
        answers = await asyncio.gather(*(server.http.get("/ui/state") for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert calls == ["engine_view"]

    serve(test)


def test_the_stream_of_snapshots_ends_when_the_server_drains(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        _shows(server)
        look = asyncio.create_task(server.http.get("/ui/live"))
        await asyncio.sleep(0.1)
        server.state.draining = True
        async with asyncio.timeout(5):
            answer = await look
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [one for one in answer.text.split("\n\n") if one]
        assert events and all(one.startswith("data: ") for one in events)
        assert json.loads(events[0][6:])["engine"]["caches"][0]["num_blocks"] == 64

    serve(test)


def test_a_silent_or_dead_engine_leaves_the_rest_of_the_snapshot(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quire.server.live_view._PATIENCE_S", 0.05)

    async def test(server: Scripted) -> None:
        async def silent() -> str:
            await asyncio.sleep(60)
            return ""

        monkeypatch.setattr(server.llm, "engine_view", silent)
        found = (await server.http.get("/ui/state")).json()
        assert found["engine"] is None and found["model"] == "tiny"

    serve(test)
