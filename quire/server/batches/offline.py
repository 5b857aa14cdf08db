"""`quire run-batch`: the requests of a file through an engine in this program, without a port.

Flags are read by `quire.cli.run_batch`; batches of a server are `server.batches.jobs`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx
import uvicorn
from fastapi import FastAPI
from tqdm import tqdm  # type: ignore[import-untyped]

from quire.config.schema import Settings
from quire.config.server import ServerConfig
from quire.protocol.errors import QuireError, SettingsError
from quire.server.app import build_app
from quire.server.batches.caller import Caller
from quire.server.batches.lines import BadLineError, answer_record, raw_lines, read_line
from quire.server.completion_output import encode
from quire.server.face import Face
from quire.server.routes import info
from quire.server.state import ServerState

logger = logging.getLogger(__name__)

_PREFIXES = ("vllm-", "vllm-batch-")
_PUT_TRIES = 5
_PUT_PAUSE_S = 5.0
_TIMEOUT_S = 300.0  # of one read or write of a download or upload


@dataclass(frozen=True, kw_only=True)
class RunBatch:
    """What one run reads and writes. `metrics_at` is host and port of /metrics, None for none."""

    input_file: str
    output_file: str
    output_tmp_dir: str | None = None
    metrics_at: tuple[str, int] | None = None


def run_batch(
    settings: Settings, config: ServerConfig, what: RunBatch, make_llm: Callable[[Settings], Face]
) -> int:
    """Runs all lines; returns 0, or 1 if the engine failed. Faults of a line are in the output.

    Raises SettingsError for files that cannot be had, and what starting an engine raises.
    """
    with contextlib.ExitStack() as stack:
        scratch = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="quire-batch-", dir=what.output_tmp_dir)
            )
        )
        source = _fetch(what.input_file, scratch)
        target = scratch / "output.jsonl" if _is_url(what.output_file) else Path(what.output_file)
        try:
            out = stack.enter_context(open(target, "wb"))
        except OSError as error:
            raise SettingsError(f"-o {what.output_file}: {error.strerror or error}") from None
        llm = make_llm(settings)
        stack.callback(llm.shutdown)
        llm.wait_ready()
        state = ServerState(settings, config, llm)
        code = asyncio.run(_run(state, build_app(state), source, out, what))
        out.flush()
        if code == 0 and _is_url(what.output_file):
            asyncio.run(_put(what.output_file, target))
    return code


def _is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def _fetch(name: str, scratch: Path) -> Path:
    """The input as a local file. Raises SettingsError."""
    if not _is_url(name):
        if not Path(name).is_file():
            raise SettingsError(f"-i {name}: there is no such file")
        return Path(name)
    path = scratch / "input.jsonl"
    try:
        with httpx.stream("GET", name, timeout=_TIMEOUT_S, follow_redirects=True) as reply:
            reply.raise_for_status()
            with open(path, "wb") as out:
                for piece in reply.iter_bytes(1 << 20):
                    out.write(piece)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise SettingsError(f"-i {name}: {error}") from None
    return path


async def _put(url: str, path: Path) -> None:
    """Uploads the output. Raises QuireError when five tries have failed; the file is kept then."""
    async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
        for left in range(_PUT_TRIES - 1, -1, -1):
            try:
                headers = {"content-length": str(path.stat().st_size)}
                reply = await http.put(url, content=_pieces(path), headers=headers)
                reply.raise_for_status()
                return
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                logger.warning("upload to %s failed: %s", url, error)
                if left:
                    await asyncio.sleep(_PUT_PAUSE_S)
    kept = Path(tempfile.mkdtemp(prefix="quire-batch-")) / "output.jsonl"
    shutil.copyfile(path, kept)
    raise QuireError(f"the output could not be uploaded to {url}; it is kept in {kept}")


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with open(path, "rb") as file:
        while piece := await asyncio.to_thread(file.read, 1 << 20):
            yield piece


async def _run(
    state: ServerState, app: FastAPI, source: Path, out: BinaryIO, what: RunBatch
) -> int:
    caller = Caller(app)
    assert state.llm is not None
    at_once = state.config.batch_concurrency or 2 * state.llm.info.max_num_seqs
    limit = state.config.max_body_bytes
    total = sum(1 for _ in raw_lines(source, max_bytes=limit))
    waiting = iter(raw_lines(source, max_bytes=limit))
    async with contextlib.AsyncExitStack() as stack:
        if what.metrics_at is not None:
            await stack.enter_async_context(_metrics(state, *what.metrics_at))
        bar = stack.enter_context(tqdm(total=total, unit="line", desc="run-batch"))

        def begin(count: int) -> Iterator[asyncio.Task[bytes]]:
            for number, raw in itertools.islice(waiting, count):
                task = asyncio.create_task(_answer(caller, number, raw, limit))
                task.add_done_callback(lambda _: bar.update())
                yield task

        tasks = list(begin(at_once))
        while tasks:
            record = await tasks.pop(0)
            if state.llm.errored:
                logger.error("%s", state.llm.dead_error)
                return 1
            out.write(record + b"\n")
            state.tick()
            num_running = sum(not task.done() for task in tasks)
            tasks += begin(max(0, min(at_once - num_running, 4 * at_once - len(tasks))))
    await caller.close()
    return 0


async def _answer(caller: Caller, number: int, raw: bytes, limit: int) -> bytes:
    """The record of one line."""
    try:
        line = read_line(number, raw, max_bytes=limit)
    except BadLineError as error:
        return _failed(error.custom_id, 400, f"line {number}: {error}")
    if not caller.takes(line.url):
        return _failed(line.custom_id, 404, f"line {number}: requests to {line.url} are not served")
    status, body = await caller.post(line.url, line.body, {})
    return answer_record(line.custom_id, status, body, prefixes=_PREFIXES, with_error=True)


def _failed(custom_id: str | None, status: int, message: str) -> bytes:
    problem = {400: "BadRequestError", 404: "NotFoundError"}[status]
    error = {"message": message, "type": problem, "param": None, "code": status}
    body = encode({"error": error})
    return answer_record(custom_id, status, body, prefixes=_PREFIXES, with_error=True)


@contextlib.asynccontextmanager
async def _metrics(state: ServerState, host: str, port: int) -> AsyncIterator[None]:
    """Serves /metrics and /health while the lines run."""
    app = FastAPI(openapi_url=None)
    app.state.quire = state
    app.add_api_route("/metrics", info.metrics)
    app.add_api_route("/health", info.health)
    server = uvicorn.Server(
        uvicorn.Config(app, host=host, port=port, log_config=None, lifespan="off", ws="none")
    )
    serving = asyncio.create_task(server.serve())
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
