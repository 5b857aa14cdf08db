"""What all routes of one server share: the engine, its phase, names, metrics, and the requests in flight.

Starting and ending the server is `server.launch`.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from quire.config.schema import Settings
from quire.config.server import ServerConfig
from quire.metrics.engine_stats import ServingMetrics
from quire.metrics.registry import Metrics
from quire.metrics.stats_log import StatsLog
from quire.protocol.errors import OutOfCapacityError
from quire.protocol.outputs import EngineStats
from quire.server.admission import Admission
from quire.server.batches.caller import CALLED_FROM_INSIDE
from quire.server.errors import not_found, unavailable
from quire.server.face import Face


class ServerState:
    """One server. `llm` is None until the engine is being started; use it from the event loop."""

    def __init__(self, settings: Settings, config: ServerConfig, llm: Face | None = None) -> None:
        self.settings = settings
        self.config = config
        self.created = int(time.time())
        self.llm: Face | None = llm
        self.ready = False
        self.draining = False
        self.num_live = 0
        self.num_live_lines = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self._seen = EngineStats()
        self._number_requests(None)
        if llm is not None:
            self.set_ready(llm)

    @property
    def names(self) -> list[str]:
        """Names the server answers to; the first is echoed."""
        model = self.settings.model
        return model.served_model_name or [model.model]

    @property
    def phase(self) -> tuple[str, int]:
        """What the server is doing, and how far it is in percent (-1: unknown)."""
        if self.draining:
            return "draining", -1
        if self.ready and not self.is_restarting:
            return "ready", 100
        return self.llm.phase if self.llm is not None else ("starting", -1)

    @property
    def is_restarting(self) -> bool:
        """Whether requests are taken, but wait for a new engine in place of one that died."""
        return self.llm is not None and self.llm.is_restarting

    def set_ready(self, llm: Face) -> None:
        """From now on requests are served. The metrics start anew, with the model's context known."""
        self.llm = llm
        self._number_requests(llm)
        self.ready = True

    def _number_requests(self, llm: Face | None) -> None:
        limit = llm.info.max_model_len if llm is not None else 131072
        self.metrics = Metrics(self.names[0], max_model_len=limit)
        enabled = not self.settings.observability.disable_log_stats
        self.serving = ServingMetrics(self.metrics, enabled=enabled)
        self.admission = Admission(
            self.config.max_queue_wait,
            step_tokens=llm.info.max_num_batched_tokens if llm is not None else 0,
            max_num_seqs=llm.info.max_num_seqs if llm is not None else 1,
            tokens_per_s=llm.info.tokens_per_s if llm is not None else 0.0,
        )
        interval_s = self.settings.observability.log_stats_interval if enabled else 0.0
        self.stats_log = StatsLog(interval_s)
        if llm is None:
            return
        cache, info = self.settings.cache, llm.info
        labels = {name: str(getattr(cache, name)) for name in cache.__dataclass_fields__}
        labels |= {
            "engine": "0",
            "block_size": str(info.block_size),
            "num_gpu_blocks": str(info.num_blocks),
            "cache_dtype": cache.kv_cache_dtype,
            "enable_prefix_caching": str(info.enable_prefix_caching),
        }
        self.metrics.info("vllm:cache_config_info", "the cache as it was set up", labels)

    def serving_llm(self) -> Face:
        """The engine, if it takes requests now. Raises HttpError (503), or the reason of its death."""
        llm = self.llm
        if llm is not None and llm.errored:
            raise llm.dead_error
        if self.draining:
            raise unavailable("the server is shutting down (phase: draining); try another one")
        if llm is None or not self.ready:
            text, percent = self.phase
            far = f", {percent}%" if percent >= 0 else ""
            raise unavailable(f"the model is not ready (phase: {text}{far}); try again")
        return llm

    def check_model(self, name: str | None) -> str:
        """The name to echo. Raises HttpError (404) for a model that is not served."""
        if name is None or name in self.names:
            return name or self.names[0]
        raise not_found(name)

    def check_room(self) -> None:
        """Raises OutOfCapacityError while no request is admitted, whatever it asks for: before a body is parsed."""
        with self.counts_refusal():
            self.admission.check()

    @contextmanager
    def counts_refusal(self) -> Iterator[None]:
        """Counts a request for which this raises OutOfCapacityError."""
        try:
            yield
        except OutOfCapacityError:
            self.metrics.count("quire:requests_refused")
            raise

    def fingerprint(self) -> str | None:
        """`system_fingerprint` of answers, as `--fingerprint-mode` asks."""
        mode = self.config.fingerprint_mode
        if mode == "none" or self.llm is None:
            return None
        if mode == "custom":
            return self.config.fingerprint_value
        full = self.llm.info.fingerprint
        return hashlib.sha256(full.encode()).hexdigest()[:16] if mode == "hash" else full

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Counts a request for `/load` and for draining; lines of batches are also counted apart."""
        is_line = CALLED_FROM_INSIDE.get()
        self.num_live += 1
        self.num_live_lines += is_line
        self.idle.clear()
        try:
            yield
        finally:
            self.num_live -= 1
            self.num_live_lines -= is_line
            if self.num_live == 0:
                self.idle.set()

    def take_stats(self) -> None:
        """Brings the engine's counters to what follows them, if there are new ones."""
        if self.llm is None or not self.ready or self.llm.stats is self._seen:
            return
        self._seen = self.llm.stats
        self.serving.take_stats(self._seen)
        self.admission.watch(self._seen, is_restarting=self.is_restarting)
        self.llm.short_turns = self.admission.is_closed

    def tick(self) -> None:
        """To be called a few times a second: `take_stats`, the time that passed, a line in the log."""
        self.take_stats()
        if self.llm is not None and self.ready:
            self.admission.watch(self._seen, is_restarting=self.is_restarting)
            self.stats_log.tick(self._seen, self.admission.num_started)


def new_id() -> str:
    """32 random hex digits."""
    return os.urandom(16).hex()
