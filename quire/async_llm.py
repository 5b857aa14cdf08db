"""`AsyncLLM`: many requests at once, each a stream of outputs, in an asyncio program.

Speaking HTTP is `quire.server`; lists of prompts without asyncio are `quire.llm`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any

from quire.async_control import EngineControl
from quire.async_front import FrontOnly
from quire.async_pooling import AsyncPooling
from quire.config.args import EngineArgs
from quire.config.schema import Settings
from quire.engine.absent import AbsentClient
from quire.engine.child import EarlyChild
from quire.engine.client import EngineClient, make_client
from quire.frontend.inputs import InputProcessor, RequestOptions, check_named
from quire.frontend.outputs import OutputProcessor
from quire.frontend.prompts import chars_to_read
from quire.frontend.prompts import prompt_text as text_of
from quire.frontend.streams import Deliveries, RequestStream
from quire.frontend.texts import Texts, opened_early
from quire.metrics.stat_loggers import StatLoggers
from quire.protocol.errors import (
    EngineDeadError,
    NotServedError,
)
from quire.protocol.outputs import EngineInfo, EngineOutputs, EngineStats
from quire.protocol.params import PoolingParams, RequestOutputKind, SamplingParams
from quire.protocol.results import RequestOutput

logger = logging.getLogger(__name__)

_INLINE_CHARS = 4096  # a longer prompt is tokenised in a thread: about 2 ms of the event loop
_DRAIN_LOOK_S = 0.02


class AsyncLLM(EngineControl, FrontOnly, AsyncPooling):
    """One engine, in its own process by default, shared by the tasks of one event loop.

    Requests without a seed draw theirs from `settings.model.seed` and the number of requests before
    them where that is given, else from the system.
    """

    def __init__(self, client: EngineClient) -> None:
        """Takes the client over: `shutdown` ends it. Returns at once; see `wait_ready`."""
        self._client = client
        self._settings: Settings = client.settings
        self._inputs: InputProcessor | None = None
        self._outputs: OutputProcessor | None = None
        self._streams: dict[str, RequestStream[Any]] = {}
        self._deliveries = Deliveries()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stats = EngineStats()
        self._loggers = StatLoggers(client.settings)
        self._dead: str | None = None
        self._closed = False
        # The client's thread must not keep a dropped AsyncLLM, and so its engine, alive.
        client.start(_weakly(self._on_outputs), _weakly(self._on_death))

    @classmethod
    def from_engine_args(
        cls,
        engine_args: EngineArgs,
        start_engine_loop: bool = True,
        usage_context: Any = None,
        stat_loggers: Any = None,
    ) -> AsyncLLM:
        """An engine with these settings, ready to serve.

        `start_engine_loop` and `usage_context` are not read: the engine always runs. `stat_loggers`
        are makers as in `metrics.stat_loggers`, called beside those of installed plug-ins.
        """
        engine = cls.from_settings(engine_args.to_settings())
        engine._loggers.add(stat_loggers or ())
        return engine

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        wait: bool = True,
        own_process: bool = True,
        early: EarlyChild | None = None,
    ) -> AsyncLLM:
        """An engine with these settings; `wait` until it can serve. Raises what `wait_ready` raises.

        early  a process that was started for it before.
        """
        check_named(settings)
        engine = cls(make_client(settings, own_process=own_process, early=early))
        if wait:
            try:
                engine.wait_ready()
            except BaseException:
                engine.shutdown()
                raise
        return engine

    @classmethod
    def without_engine(cls, settings: Settings) -> AsyncLLM:
        """One that renders prompts and reads answers, and generates nothing; no weights are read."""
        return cls(AbsentClient(settings))

    @property
    def phase(self) -> tuple[str, int]:
        """What the engine does before it can serve, and how far it is in percent (-1: unknown)."""
        return self._client.phase

    @property
    def is_ready(self) -> bool:
        """Whether requests are served at once; false while an engine is started again."""
        return self._inputs is not None and self.is_running and self._client.is_ready

    @property
    def short_turns(self) -> bool:
        """Whether the outputs of a step are handed out a few at a time, others of the loop in between."""
        return self._deliveries.short_turns

    @short_turns.setter
    def short_turns(self, value: bool) -> None:
        self._deliveries.short_turns = value

    @property
    def is_restarting(self) -> bool:
        """Whether requests wait because an engine died and another one starts."""
        return self._inputs is not None and self.is_running and not self._client.is_ready

    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        """Blocks until the engine can serve. Raises SettingsError, ModelLoadError or EngineDeadError."""
        description, texts = self._client.description, None
        if self._inputs is None:  # takes 50 ms, while the engine starts
            texts = opened_early(self._settings, description)
        info = self._client.wait_ready(timeout_s)
        with self._lock:
            if self._inputs is None:
                self._build_front(info, texts)
        return info

    def _build_front(self, info: EngineInfo, texts: Texts | None) -> None:
        inputs = InputProcessor.from_settings(
            self._settings, self._client.description, info, base_seed=None, texts=texts
        )
        self._outputs = OutputProcessor(
            inputs.tokenizer, stream_interval=self._settings.scheduler.stream_interval
        )
        self._inputs = inputs

    @property
    def info(self) -> EngineInfo:
        """What the engine resolved: lengths, sizes, fingerprint, the table of choices. Waits for it."""
        return self._client.info

    @property
    def settings(self) -> Settings:
        """The settings as they were given."""
        return self._settings

    @property
    def stats(self) -> EngineStats:
        """The engine's counters as of its last message."""
        return self._stats

    @property
    def num_unfinished_requests(self) -> int:
        """Requests that run or wait."""
        return len(self._streams)

    async def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams | None,
        request_id: str,
        *,
        prompt_text: str | None = None,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        arrival_time: float | None = None,
        data_parallel_rank: int | None = None,
        session_id: str | None = None,
        strict: bool = False,
    ) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of one request, as they come; closing or cancelling the iteration ends it.

        The first use raises InvalidRequestError for a request that cannot be served. Later errors:
        RequestFailedError for this request only, EngineDeadError for all. `strict` as in
        `RequestOptions`; `session_id` is not read.
        """
        if data_parallel_rank:
            raise NotServedError("there is one engine, of rank 0", param="data_parallel_rank")
        options = RequestOptions(
            priority=priority,
            arrival_time=arrival_time,
            cache_salt=cache_salt,
            tokenization_kwargs=tokenization_kwargs,
            lora_request=lora_request,
            trace_headers=trace_headers,
            strict=strict,
        )
        stream = await self.add_request(
            request_id, prompt, sampling_params, options, prompt_text=prompt_text
        )
        try:
            async for output in stream:
                yield output
        finally:
            stream.close()

    async def add_request(
        self,
        request_id: str,
        prompt: Any,
        params: SamplingParams | PoolingParams | None = None,
        options: RequestOptions | None = None,
        *,
        prompt_text: str | None = None,
    ) -> RequestStream[Any]:
        """Checks a request and hands it to the engine; its outputs are in the stream, which must be closed.

        The same `request_id` may be live more than once. Raises InvalidRequestError, TypeError or
        EngineDeadError.
        """
        options = options or RequestOptions()
        self._check_alive()
        if self._inputs is None:
            await asyncio.to_thread(self.wait_ready)
        assert self._inputs is not None and self._outputs is not None
        self._take_loop()
        text = text_of(prompt)
        checked = self._inputs.constraints.check_later(params)
        if checked is not None:
            await asyncio.wrap_future(checked)
        if chars_to_read(prompt) > _INLINE_CHARS:
            request = await asyncio.to_thread(
                self._inputs.process, request_id, prompt, params, options
            )
        else:
            request = self._inputs.process(request_id, prompt, params, options)
        self._check_alive()
        if self._settings.observability.enable_log_requests:
            logger.info("request %s: %d prompt tokens", request_id, len(request.prompt_token_ids))
        joins = request.params.output_kind is RequestOutputKind.DELTA
        stream: RequestStream[Any] = RequestStream(
            request.request_id, joins=joins, on_close=self._close_stream
        )
        self._outputs.add(request, request_id, prompt_text or text)
        self._streams[request.request_id] = stream
        try:
            self._client.add(request)
        except BaseException:
            self._forget(request.request_id)
            raise
        return stream

    async def abort(self, request_id: str | Iterable[str], internal: bool = False) -> None:
        """Ends live requests: their streams get a last output with finish reason "abort".

        internal  the ids are `RequestStream.request_id`; otherwise the user's own, and every live
                  request of that name ends. Unknown ids are passed over.
        """
        if self._outputs is None:
            return
        names = [request_id] if isinstance(request_id, str) else list(request_id)
        if not internal:
            names = [one for name in names for one in self._outputs.live_ids(name)]
        self._deliveries.finish()
        for name, output in self._outputs.abort(names):
            self._client.abort(name)
            self._streams.pop(name).put(output)

    async def check_health(self) -> None:
        """Raises EngineDeadError if the engine cannot serve any more."""
        self._check_alive()

    @property
    def is_running(self) -> bool:
        """Whether the engine lives and was not shut down."""
        return not self._closed and self._dead is None

    @property
    def is_stopped(self) -> bool:
        """The opposite of `is_running`."""
        return not self.is_running

    @property
    def errored(self) -> bool:
        """Whether the engine died."""
        return self._dead is not None

    @property
    def dead_error(self) -> EngineDeadError:
        """What requests get once the engine is dead."""
        return EngineDeadError(self._dead or "the engine is shut down")

    async def wait_for_requests_to_drain(self, timeout: float = 300) -> None:
        """Waits until no request is live. Raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while self._streams:
                await asyncio.sleep(_DRAIN_LOOK_S)

    def shutdown(self, timeout: float | None = None) -> None:
        """Ends the engine, at most `timeout` seconds (5 if None) for its leave; may be called twice."""
        if not self._closed:
            self._closed = True
            self._client.shutdown(5.0 if timeout is None else timeout)
            self._fail_streams()

    def __del__(self) -> None:
        if getattr(self, "_client", None) is not None:
            with contextlib.suppress(Exception):
                self.shutdown()

    def _take_loop(self) -> None:
        """Binds to the running event loop; the requests of a loop that was closed are dropped."""
        loop = asyncio.get_running_loop()
        if self._loop is loop:
            return
        if self._loop is not None and not self._loop.is_closed() and self._streams:
            raise RuntimeError("this AsyncLLM serves another event loop; use one for each loop")
        for name in list(self._streams):
            self._close_stream(name)
        self._loop = loop

    def _on_outputs(self, news: EngineOutputs) -> None:
        """Called from the client's thread."""
        self._stats = news.stats
        self._loggers.take(news.stats)
        if news.updates:
            self._in_loop(lambda: self._deliver(news))

    def _on_death(self, error: str) -> None:
        """Called from the client's thread."""
        if not self._closed:
            self._dead = error
            logger.error("%s", error)
            self._in_loop(self._fail_streams)

    def _in_loop(self, what: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody reads any more
                self._loop.call_soon_threadsafe(what)

    def _deliver(self, news: EngineOutputs) -> None:
        assert self._outputs is not None
        done = self._outputs.process(news)
        if not self.is_running:
            return
        for name, index in done.aborts:
            self._client.abort(name, index)
        for name, output in done.outputs:
            stream = self._streams[name]
            if output.finished:
                del self._streams[name]
            self._deliveries.add(stream, output)
        self._deliveries.begin(asyncio.get_running_loop())

    def _fail_streams(self) -> None:
        self._deliveries.finish()
        for name in list(self._streams):
            self._forget(name).fail(self.dead_error)

    def _forget(self, name: str) -> RequestStream[Any]:
        assert self._outputs is not None
        self._outputs.abort([name])
        return self._streams.pop(name)

    def _close_stream(self, name: str) -> None:
        if name in self._streams:
            self._forget(name)
            if self.is_running:
                with contextlib.suppress(EngineDeadError):
                    self._client.abort(name)


AsyncLLMEngine = AsyncLLM


def _weakly(method: Callable[[Any], None]) -> Callable[[Any], None]:
    """Calls the bound method while its object lives."""
    reference = weakref.WeakMethod(method)

    def call(news: Any) -> None:
        found = reference()
        if found is not None:
            found(news)

    return call
