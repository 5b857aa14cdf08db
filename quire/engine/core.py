"""The engine's loop: plan a step, hand it to the executor, account for what came back.

Who runs is decided in `engine.scheduler`; arithmetic is the worker's. The loop raises for nobody's input.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from quire.config.schema import Settings
from quire.engine.resolve import resolve
from quire.engine.scheduler.scheduler import Scheduler
from quire.hardware.cpu import Machine, read_machine
from quire.models.registry import ModelDescription
from quire.protocol.errors import InvalidRequestError
from quire.protocol.outputs import EngineInfo, EngineOutputs, SequenceUpdate
from quire.protocol.request import EngineRequest
from quire.protocol.step import StepPlan, StepResult
from quire.worker.executor import Executor, LocalExecutor, StepFailedError, Ticket

logger = logging.getLogger(__name__)

CALLS = ("has_work", "reset_prefix_cache", "blocks_in_use")
"""What a front may call by name."""

OnPhase = Callable[[str, int], None]
MakeExecutor = Callable[..., Executor]
"""Called with the keywords of `LocalExecutor`; tests pass a fake."""

_STEP_TARGET_S = 0.45  # a mixed step stays under 0.5 s, so that running streams never stall longer
_MIN_BUDGET = 64
_FIRST_BUDGET = (
    256  # before anything is measured; a model of a billion parameters does it in about a second
)
_RATE_MIN_TOKENS = 32  # smaller steps say little about the rate of prefill
_RATE_WEIGHT = 0.3


class EngineCore:
    """One scheduler, one executor, and the plans in flight between them."""

    def __init__(
        self,
        settings: Settings,
        description: ModelDescription,
        *,
        on_phase: OnPhase | None = None,
        make_executor: MakeExecutor | None = None,
        machine: Machine | None = None,
        with_front: bool = False,
    ) -> None:
        """Loads the model. Raises SettingsError or ModelLoadError with what to do.

        with_front  whether a front in a process of its own belongs to the memory ledger.
        """
        report = on_phase or (lambda text, percent: None)
        self.resolved = resolve(
            settings, description, machine or read_machine(), with_front=with_front
        )
        scheduling = self.resolved.settings.scheduler
        cache = self.resolved.settings.cache
        self._max_budget = scheduling.max_num_batched_tokens or 1
        self.scheduler = Scheduler(
            layout=self.resolved.layout,
            max_num_seqs=scheduling.max_num_seqs or 1,
            max_num_batched_tokens=self._max_budget,
            max_model_len=self.resolved.max_model_len,
            policy=scheduling.scheduling_policy,
            long_prefill_token_threshold=scheduling.long_prefill_token_threshold,
            enable_prefix_caching=bool(cache.enable_prefix_caching),
            hash_algo=cache.prefix_caching_hash_algo,
        )
        self.executor = (make_executor or LocalExecutor)(
            settings=self.resolved.settings,
            layout=self.resolved.layout,
            description=description,
            cache_dtype=self.resolved.cache_dtype,
            on_phase=report,
        )
        self.info = self._describe(description)
        self._flights: deque[tuple[StepPlan, Ticket]] = deque()
        self._updates: list[SequenceUpdate] = []
        self._tokens_per_s = 0.0
        if self.resolved.adaptive_budget:
            self.scheduler.token_budget = min(_FIRST_BUDGET, self._max_budget)

    def add(self, request: EngineRequest) -> None:
        """Queues a request; one that the front should have refused ends with an error."""
        try:
            self.scheduler.add(request)
        except InvalidRequestError as error:
            num_sequences = getattr(request.params, "n", 1)
            self._updates += [
                SequenceUpdate(
                    request_id=request.request_id,
                    index=index,
                    finish_reason="error",
                    error=str(error),
                )
                for index in range(num_sequences)
            ]

    def abort(self, request_id: str, index: int | None = None) -> None:
        self._updates.extend(self.scheduler.abort(request_id, index))

    def has_work(self) -> bool:
        return bool(self._flights or self._updates) or self.scheduler.has_work()

    def step(self) -> EngineOutputs | None:
        """Fills the executor's tickets and collects the oldest. None when there was nothing to do."""
        while len(self._flights) < self.resolved.depth:
            plan = self.scheduler.schedule()
            if plan is None:
                break
            self._flights.append((plan, self.executor.submit(plan)))
            self.scheduler.settle()  # while the executor computes
        updates, self._updates = self._updates, []
        if self._flights:
            updates.extend(self._collect())
        elif not updates:
            return None
        return EngineOutputs(updates=updates, stats=self.scheduler.stats(), at_s=time.monotonic())

    def _collect(self) -> list[SequenceUpdate]:
        plan, ticket = self._flights.popleft()
        try:
            result = self.executor.collect(ticket)
        except StepFailedError as error:
            return self._recover(plan, error)
        self._follow_rate(plan, result)
        return self.scheduler.update(plan, result)

    def _recover(self, plan: StepPlan, error: StepFailedError) -> list[SequenceUpdate]:
        """A step raised: what was in flight behind it is void; the scheduler isolates who is to blame."""
        logger.error("step %d failed: %s", plan.step, error, exc_info=error.__cause__)
        plans = [plan]
        while self._flights:
            later, ticket = self._flights.popleft()
            plans.append(later)
            try:
                self.executor.collect(ticket)
            except StepFailedError:
                continue
        return self.scheduler.fail(plans, str(error))

    def _follow_rate(self, plan: StepPlan, result: StepResult) -> None:
        """Keeps the token budget near what the measured rate does in the target time."""
        num_tokens = plan.num_tokens
        if (
            not self.resolved.adaptive_budget
            or num_tokens < _RATE_MIN_TOKENS
            or result.elapsed_s <= 0.0
        ):
            return
        rate = num_tokens / result.elapsed_s
        before = self._tokens_per_s
        # Down at once, up slowly: a long prompt's chunks get dearer, and running streams must not wait.
        is_slower = before == 0.0 or rate < before
        self._tokens_per_s = rate if is_slower else before + _RATE_WEIGHT * (rate - before)
        wanted = int(self._tokens_per_s * _STEP_TARGET_S)
        self.scheduler.token_budget = max(_MIN_BUDGET, min(self._max_budget, wanted))

    def call(self, name: str) -> Any:
        """One of CALLS. Raises ValueError for any other name."""
        if name not in CALLS:
            raise ValueError(f"the engine has no call {name!r}; it has {', '.join(CALLS)}")
        return getattr(self, name)()

    def reset_prefix_cache(self) -> bool:
        """Forgets every cached block; False while blocks are in use."""
        return self.scheduler.reset_prefix_cache()

    def blocks_in_use(self) -> int:
        """Blocks held by live sequences."""
        return self.scheduler.stats().blocks_in_use

    def shutdown(self) -> None:
        self.executor.shutdown()

    def _fingerprint(self) -> str:
        """That of the settings; with what computes instead, where the expected kernels could not be loaded."""
        expected, loaded = self.resolved.kernels, self.executor.kernels
        if expected is None or loaded is None or loaded == expected:
            return self.resolved.fingerprint
        threads = self.resolved.settings.parallel.threads
        return f"{self.resolved.fingerprint}_{loaded or f'torch{threads}'}"

    def _describe(self, description: ModelDescription) -> EngineInfo:
        settings, layout = self.resolved.settings, self.resolved.layout
        cache_bytes = layout.num_slabs * layout.slab_bytes
        growing = [group for group in layout.groups if group.window is None] or list(layout.groups)
        return EngineInfo(
            max_model_len=self.resolved.max_model_len,
            max_num_seqs=settings.scheduler.max_num_seqs or 1,
            max_num_batched_tokens=self._max_budget,
            block_size=settings.cache.block_size or 1,
            num_blocks=layout.max_blocks(0),
            capacity_tokens=cache_bytes // sum(group.bytes_per_token for group in growing),
            cache_bytes=cache_bytes,
            vocab_size=description.spec.vocab_size,
            dtype=self.resolved.dtype,
            fingerprint=self._fingerprint(),
            enable_prefix_caching=bool(settings.cache.enable_prefix_caching),
            table=self.resolved.table,
            providers=self.executor.providers,
            ledger=self.resolved.ledger.table(self.resolved.available_bytes),
        )
