"""A server from start to end: the port first, then the engine, drained at the end.

What it answers is `server.app`; reading the command line is `quire.cli`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

import uvicorn
import uvloop

from quire.config.schema import Settings
from quire.config.server import ServerConfig
from quire.hardware.turns import SHORT_NS, ask_for_turns
from quire.metrics.start_log import capacity_lines
from quire.protocol.errors import ModelLoadError, QuireError, SettingsError
from quire.server.address import bind, check
from quire.server.app import build_app
from quire.server.certificates import follow
from quire.server.endpoint_plugins import Endpoint, attach, installed_endpoints, start
from quire.server.face import Face
from quire.server.http_protocol import bounded_protocol
from quire.server.state import ServerState
from quire.server.steady import collect_start, forget_start

logger = logging.getLogger(__name__)

T = TypeVar("T")

EXIT_STOPPED, EXIT_FAILED, EXIT_WRONG = 0, 1, 2
"""Ended as asked; the engine failed; a setting or the model cannot work."""

_START_THREAD = "quire-start"
_LOOK_S = 0.1
_COLLECT_LOOKS = 10  # of them found nothing to do; what the start left goes then
_FLUSH_S = 0.5  # what answers get to leave after the engine's death

MakeLlm = Callable[[Settings], Face]


def make_async_llm(settings: Settings) -> Face:
    """The engine's streaming face, not ready yet."""
    from quire.async_llm import AsyncLLM

    return AsyncLLM.from_settings(settings, wait=False)


def make_render_llm(settings: Settings) -> Face:
    """A face that renders prompts and has no engine."""
    from quire.async_llm import AsyncLLM

    return AsyncLLM.without_engine(settings)


def serve(
    settings: Settings,
    config: ServerConfig,
    make_llm: MakeLlm | None = None,
    *,
    endpoints: Sequence[Endpoint] = (),
    bound: socket.socket | None = None,
) -> int:
    """Serves until a signal or the engine's death; returns the exit code. Raises SettingsError.

    endpoints  routes beside those of the server and of installed plug-ins.
    bound      the listening socket of these settings, which were checked, where there is one already.
    """
    if bound is None:
        check(config)
    ask_for_turns(SHORT_NS)  # before any thread that speaks to clients
    added = [*installed_endpoints(), *endpoints]
    bound = bound or bind(config)
    make = make_llm or (make_render_llm if config.render_only else make_async_llm)
    running = Running(settings, config, make, added)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(running.run(bound))
    if running.state.llm is None and _is_starting():
        # A download's threads cannot be told to stop, and the interpreter would wait for them.
        logging.shutdown()
        os._exit(code)
    return code


def _is_starting() -> bool:
    """Whether the engine's start is under way, and goes on after a moment."""
    for thread in threading.enumerate():
        if thread.name == _START_THREAD:
            thread.join(_FLUSH_S)
            return thread.is_alive()
    return False


def url_of(bound: socket.socket, config: ServerConfig) -> str:
    """Where the server is reached."""
    if config.uds is not None:
        return f"unix:{config.uds}"
    host, port = bound.getsockname()[:2]
    scheme = "https" if config.ssl_certfile else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's server, leaving signals to us."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Captures nothing."""
        yield


class Running:
    """One run of a server."""

    def __init__(
        self,
        settings: Settings,
        config: ServerConfig,
        make_llm: MakeLlm,
        endpoints: Sequence[Endpoint] = (),
    ) -> None:
        self.state = ServerState(settings, config)
        self.exit_code = EXIT_STOPPED
        self._make_llm = make_llm
        self._drain: asyncio.Task[None] | None = None
        self.server = _Server(uvicorn_config(self.state))
        app: Any = self.server.config.app
        attach(app, endpoints)

    async def run(self, bound: socket.socket) -> int:
        """Serves on the socket; returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        logger.info("listening on %s", url_of(bound, self.state.config))
        tasks = [asyncio.create_task(self._engine())]
        if self.state.config.enable_ssl_refresh:
            tasks.append(asyncio.create_task(self._follow_certificates()))
        try:
            await self.server.serve(sockets=[bound])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self.state.llm is not None:
                self.state.llm.shutdown()
        return self.exit_code

    async def _follow_certificates(self) -> None:
        while self.server.config.ssl is None:  # uvicorn makes it as it begins to serve
            await asyncio.sleep(_LOOK_S)
        await follow(self.state.config, self.server.config.ssl)

    def stop(self) -> None:
        """The first call drains, the second ends at once."""
        if self._drain is None:
            self._drain = asyncio.create_task(self._drained())
        else:
            self._end(self.exit_code)
            self.server.force_exit = True

    def _end(self, exit_code: int) -> None:
        self.exit_code = exit_code
        self.server.should_exit = True

    async def _drained(self) -> None:
        """No new requests; those in flight get their time; then the end."""
        self.state.draining = True
        timeout = self.state.config.shutdown_timeout
        logger.info("draining: %d requests in flight, %g s", self.state.num_live, timeout)
        try:
            async with asyncio.timeout(timeout):
                await self.state.idle.wait()
        except TimeoutError:
            logger.warning("%d requests did not end in time", self.state.num_live)
            self.server.config.timeout_graceful_shutdown = 0
        self._end(EXIT_STOPPED)

    async def _engine(self) -> None:
        """Starts the engine and watches it to its end."""
        try:
            llm = await _in_thread(lambda: self._make_llm(self.state.settings))
            self.state.llm = llm
            await _in_thread(llm.wait_ready)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._failed_to_start(error)
            return
        forget_start()
        self.state.set_ready(llm)
        app: Any = self.server.config.app
        app.state.batches.start()
        await start(app, llm, self.state.config)
        for name, value, reason in llm.info.table:
            logger.info("%-24s %-20s %s", name, value, reason)
        for line in capacity_lines(llm.info):
            logger.info("%s", line)
        logger.info("ready: serving %s", ", ".join(self.state.names))
        idle_looks = 0
        while not llm.errored:
            await asyncio.sleep(_LOOK_S)
            self.state.tick()
            idle_looks += 0 if self.state.num_live else 1
            if idle_looks == _COLLECT_LOOKS:
                collect_start()
        if self.state.config.keep_alive_on_engine_death:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_S):
                await self.state.idle.wait()
        self.server.config.timeout_graceful_shutdown = 0
        self._end(EXIT_FAILED)

    def _failed_to_start(self, error: Exception) -> None:
        wrong = isinstance(error, (SettingsError, ModelLoadError))
        text = str(error) if isinstance(error, QuireError) else f"{type(error).__name__}: {error}"
        logger.error("cannot start: %s", text)
        logger.debug("the start failed", exc_info=error)
        self._end(EXIT_WRONG if wrong else EXIT_FAILED)


def uvicorn_config(state: ServerState) -> uvicorn.Config:
    """uvicorn's own settings from ours."""
    config = state.config
    if config.disable_access_log_for_endpoints:
        quiet = frozenset(
            path.strip()
            for one in config.disable_access_log_for_endpoints
            for path in one.split(",")
        )
        logging.getLogger("uvicorn.access").addFilter(
            lambda record: _path_of(record.args) not in quiet
        )
    level = uvicorn.config.LOG_LEVELS[config.uvicorn_log_level]
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).setLevel(level)
    return uvicorn.Config(
        build_app(state),
        loop="none",
        http=bounded_protocol(config),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=not config.disable_uvicorn_access_log,
        server_header=False,
        timeout_keep_alive=max(1, round(config.keep_alive_timeout)),
        ssl_keyfile=config.ssl_keyfile,
        ssl_certfile=config.ssl_certfile,
        ssl_ca_certs=config.ssl_ca_certs,
        ssl_cert_reqs=config.ssl_cert_reqs,
        ssl_ciphers=config.ssl_ciphers,
    )


def _path_of(args: object) -> str | None:
    """The path in the arguments of an access log line: client, method, path, version, status."""
    if not isinstance(args, tuple) or len(args) < 3:
        return None
    return str(args[2]).partition("?")[0]


async def _in_thread(work: Callable[[], T]) -> T:
    """The result of blocking work in a thread that does not keep the process alive."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def body() -> None:
        result: T | None = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=body, name=_START_THREAD, daemon=True).start()
    return await future
