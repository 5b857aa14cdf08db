"""The engine as a loop that the caller turns: add requests, step, take what came out.

`quire.llm` and `quire.async_llm` are the faces for most programs; the engine itself is behind `engine.client`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from quire.config.args import EngineArgs
from quire.config.schema import Settings
from quire.engine.client import EngineClient, make_client
from quire.frontend.inputs import InputProcessor, RequestOptions, check_named
from quire.frontend.outputs import AnyOutput, OutputProcessor
from quire.frontend.prompts import prompt_text as text_of
from quire.frontend.tokenizer import Tokenizer
from quire.metrics.engine_stats import RequestWatch, ServingMetrics
from quire.metrics.reader import Metric, read_metrics
from quire.metrics.registry import Metrics
from quire.metrics.stat_loggers import StatLoggers
from quire.metrics.stats_log import StatsLog
from quire.protocol.control import reset_call
from quire.protocol.errors import (
    EngineDeadError,
    InvalidRequestError,
    SettingsError,
)
from quire.protocol.outputs import EngineStats
from quire.protocol.params import PoolingParams, RequestOutputKind, SamplingParams
from quire.protocol.results import RequestOutput


class LLMEngine:
    """One engine with its front. Use it from one thread at a time.

    Requests without a seed draw theirs from `settings.model.seed` (0 if not given) and the number of
    requests before them.
    """

    def __init__(self, client: EngineClient) -> None:
        """Takes the client over: `shutdown` ends it. Raises what `client.wait_ready` raises."""
        self._pid = os.getpid()
        self.client = client
        self.inputs = InputProcessor.from_settings(
            client.settings, client.description, client.info, base_seed=0
        )
        self.outputs = OutputProcessor(
            self.inputs.tokenizer, stream_interval=client.settings.scheduler.stream_interval
        )
        self._stats: ServingMetrics | None = None
        self._watches: dict[str, tuple[RequestWatch, bool]] = {}
        if not client.settings.observability.disable_log_stats:
            model = client.settings.model
            metrics = Metrics(
                (model.served_model_name or [model.model])[0],
                max_model_len=client.info.max_model_len,
            )
            self._stats = ServingMetrics(metrics)
        self._stats_log = StatsLog(client.settings.observability.log_stats_interval)
        self._last_stats = EngineStats()
        self._loggers = StatLoggers(client.settings)
        self._num_started = 0

    @classmethod
    def from_engine_args(
        cls,
        engine_args: EngineArgs,
        usage_context: Any = None,
        stat_loggers: Any = None,
        enable_multiprocessing: bool = False,
    ) -> LLMEngine:
        """An engine with these settings, in this process unless `enable_multiprocessing`.

        `usage_context` is not read. `stat_loggers` are makers as in `metrics.stat_loggers`, called beside
        those of installed plug-ins.
        """
        settings = engine_args.to_settings()
        engine = cls.from_settings(settings, own_process=enable_multiprocessing)
        engine._loggers.add(stat_loggers or ())
        return engine

    @classmethod
    def from_settings(cls, settings: Settings, *, own_process: bool = False) -> LLMEngine:
        """An engine with these settings, in this process or in its own."""
        check_named(settings)
        client = make_client(settings, own_process=own_process)
        try:
            return cls(client)
        except BaseException:
            client.shutdown()
            raise

    def add_request(
        self,
        request_id: str,
        prompt: Any,
        params: SamplingParams | PoolingParams | None = None,
        arrival_time: float | None = None,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        session_id: str | None = None,
        prompt_text: str | None = None,
    ) -> str:
        """Checks a request and hands it to the engine; returns the id that the engine knows it by.

        The same `request_id` may be live more than once. `prompt_text` is given back as the output's
        prompt; `session_id` is not read. Raises InvalidRequestError or TypeError.
        """
        options = RequestOptions(
            priority=priority,
            arrival_time=arrival_time,
            lora_request=lora_request,
            tokenization_kwargs=tokenization_kwargs,
            trace_headers=trace_headers,
        )
        request = self.inputs.process(request_id, prompt, params, options)
        self.outputs.add(request, request_id, prompt_text or text_of(prompt))
        try:
            self.client.add(request)
        except BaseException:
            self.outputs.abort([request.request_id])
            raise
        if self._stats is not None and isinstance(request.params, SamplingParams):
            watch = self._stats.watch(n=request.params.n, max_tokens=request.params.max_tokens)
            is_delta = request.params.output_kind is RequestOutputKind.DELTA
            self._watches[request.request_id] = (watch, is_delta)
        return request.request_id

    def step(self) -> list[AnyOutput]:
        """One turn of the engine; what came out of it, in the engine's order."""
        return [output for _, output in self.step_with_ids()]

    def step_with_ids(self) -> list[tuple[str, Any]]:
        """Like `step`, each output with the id that `add_request` returned."""
        if not len(self.outputs):
            return []
        news = self.client.step()
        if news is None:
            raise EngineDeadError(
                f"the engine has nothing to do, but {len(self.outputs)} requests are unfinished"
            )
        self._loggers.take(news.stats)
        done = self.outputs.process(news)
        for request_id, index in done.aborts:
            self.client.abort(request_id, index)
        if self._stats is not None:
            self._count(self._stats, news.stats, done.outputs)
        return done.outputs

    def _count(
        self, serving: ServingMetrics, stats: EngineStats, outputs: list[tuple[str, AnyOutput]]
    ) -> None:
        """Brings a step into the metrics: outputs that are pieces each, others once they are whole."""
        serving.take_stats(stats)
        self._last_stats = stats
        for request_id, output in outputs:
            if not isinstance(output, RequestOutput):
                self._num_started += 1
                continue
            watch, is_delta = self._watches[request_id]
            if is_delta or output.finished:
                watch.take(output)
            if output.finished:
                del self._watches[request_id]
                self._num_started += 1
        self._stats_log.tick(stats, self._num_started)

    def abort_request(self, request_ids: str | Iterable[str], internal: bool = False) -> None:
        """Ends requests without an output. Unknown ids are passed over.

        internal  the ids are those that `add_request` returned; otherwise the user's own, and every
                  live request of that name ends.
        """
        names = [request_ids] if isinstance(request_ids, str) else list(request_ids)
        if not internal:
            names = [one for name in names for one in self.outputs.live_ids(name)]
        for request_id, _ in self.outputs.abort(names):
            self.client.abort(request_id)
            if request_id in self._watches:
                self._watches.pop(request_id)[0].close()

    def has_unfinished_requests(self) -> bool:
        """Whether a step would do anything."""
        return len(self.outputs) > 0

    def get_num_unfinished_requests(self) -> int:
        """Requests added and not ended."""
        return len(self.outputs)

    def get_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises InvalidRequestError where skip_tokenizer_init left it out."""
        if self.inputs.tokenizer is None:
            raise InvalidRequestError(
                "there is no tokenizer: the engine was started with skip_tokenizer_init"
            )
        return self.inputs.tokenizer

    def do_log_stats(self) -> None:
        """Writes the line of what the engine did since the last one; nothing with disable_log_stats."""
        if self._stats is not None:
            self._stats_log.write(self._last_stats, self._num_started)

    def get_metrics(self) -> list[Metric]:
        """All series as of the last step, as objects of `quire.metrics.reader`.

        Raises SettingsError unless the engine was started with disable_log_stats=False.
        """
        if self._stats is None:
            raise SettingsError("no metrics are collected; start with disable_log_stats=False")
        return read_metrics(self._stats.metrics.registry)

    def reset_prefix_cache(
        self, reset_running_requests: bool = False, reset_connector: bool = False
    ) -> bool:
        """Forgets all cached prefixes. False, and nothing forgotten, while a request uses blocks.

        reset_running_requests  take the blocks of live requests too; they go on by computing what they
                                had again, with the same result.
        """
        return bool(self.client.call(reset_call(reset_running_requests, reset_connector)))

    @property
    def engine_core(self) -> LLMEngine:
        """Itself: where programs for vLLM look for `save_sharded_state`."""
        return self

    def save_sharded_state(
        self, path: str, pattern: str | None = None, max_size: int | None = None
    ) -> None:
        """Writes the checkpoint under `path` so that `load_format="sharded_state"` reads it, here and in vLLM.

        As `models.loading.shards.save_sharded_state`, with its errors.
        """
        from quire.models.loading.shards import save_sharded_state  # torch, which fronts do without

        description = self.client.description
        save_sharded_state(Path(description.path), description.hf_config, path, pattern, max_size)

    def shutdown(self) -> None:
        """Ends the engine; may be called twice."""
        self.client.shutdown()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # at the interpreter's end modules may be gone already
            if os.getpid() == self._pid:  # not in a child that was forked
                self.shutdown()
