"""The engine's loop: plan a step, hand it to the executor, account for what came back.

Who runs is decided in `engine.scheduler`; arithmetic is the worker's. The loop raises for nobody's input.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from quire.config.constraints import read_constraint_options
from quire.config.schema import Settings
from quire.engine.control import CONTROL_CALLS, Control
from quire.engine.grammar.compiler import Compiler
from quire.engine.grammar.masks import MaskError, Masks, StepMasks
from quire.engine.record import RecordWriter
from quire.engine.resolve import ResolvedSettings, resolve
from quire.engine.scheduler.scheduler import Scheduler
from quire.engine.scheduler.view import engine_view
from quire.engine.warmup import measured_rate
from quire.hardware.cpu import Machine, read_machine
from quire.models.loading.ahead import Ahead
from quire.models.loading.kept import ReadAhead
from quire.models.registry import ModelDescription
from quire.protocol.engine_view import encode_view
from quire.protocol.errors import InvalidRequestError
from quire.protocol.outputs import EngineInfo, EngineOutputs, SequenceUpdate
from quire.protocol.request import EngineRequest
from quire.protocol.step import RowResult, StepPlan, StepResult
from quire.worker.executor import Executor, LocalExecutor, StepFailedError, Ticket

logger = logging.getLogger(__name__)

CALLS = ("has_work", "reset_prefix_cache", "blocks_in_use", "engine_view", *CONTROL_CALLS)
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
_COMPILE_LOOK_S = 0.02  # how long an idle engine waits for a constraint before it looks around


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
        record: RecordWriter | None = None,
        resolved: ResolvedSettings | None = None,
        ahead: Ahead | ReadAhead | None = None,
    ) -> None:
        """Loads the model. Raises SettingsError or ModelLoadError with what to do.

        with_front  whether a front in a process of its own belongs to the memory ledger.
        record      is told of every plan that goes to the executor and comes back.
        resolved    of these settings, where that was done before.
        ahead       weights that are being packed already.
        """
        report = on_phase or (lambda text, percent: None)
        self.resolved = resolved or resolve(
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
            whole_prompts=description.spec.sees_both_ways,
        )
        self.executor = (make_executor or partial(LocalExecutor, ahead=ahead))(
            settings=self.resolved.settings,
            layout=self.resolved.layout,
            description=description,
            cache_dtype=self.resolved.cache_dtype,
            on_phase=report,
        )
        self.info = self._describe(description)
        self._masks = Masks(
            lambda eos_token_ids: self._compiler(settings, description, eos_token_ids),
            vocab_size=description.spec.vocab_size,
            threads=self.resolved.settings.parallel.threads or 1,
        )
        self._mask_errors: dict[int, MaskError] = {}
        self._record = record
        self._flights: deque[tuple[StepPlan, Ticket]] = deque()
        self._updates: list[SequenceUpdate] = []
        profiling = self.resolved.settings.observability.profiler_config
        self._control = Control(profiling, self.executor.watch)
        self._tokens_per_s = 0.0
        if self.resolved.adaptive_budget:
            self.scheduler.token_budget = min(_FIRST_BUDGET, self._max_budget)

    def warm_up(self) -> None:
        """Runs a few steps for nobody; from then on `info` tells the rate. Only before any request."""
        longest = min(self._max_budget, self.resolved.max_model_len)
        rate = measured_rate(self.executor, self.resolved.layout, longest)
        self.info = replace(self.info, tokens_per_s=rate)

    def add(self, request: EngineRequest) -> None:
        """Queues a request, after its constraint is compiled if it has one; one that the front should
        have refused ends with an error."""
        if not self._control.holds(request) and self._masks.admit(request):
            self._queue(request)

    def _queue(self, request: EngineRequest) -> None:
        try:
            self.scheduler.add(request)
        except InvalidRequestError as error:
            self._refuse(request, str(error))

    def _refuse(self, request: EngineRequest, error: str) -> None:
        self._updates += [
            SequenceUpdate(
                request_id=request.request_id, index=index, finish_reason="error", error=error
            )
            for index in range(getattr(request.params, "n", 1))
        ]

    def abort(self, request_id: str, index: int | None = None) -> None:
        self._control.drop(request_id)
        self._masks.drop(request_id)
        self._updates.extend(self.scheduler.abort(request_id, index))

    def has_work(self) -> bool:
        waits = not self._control.is_paused and self.scheduler.has_work()
        return bool(self._flights or self._updates) or waits or self._masks.has_waiting

    def step(self) -> EngineOutputs | None:
        """Fills the executor's tickets and collects the oldest. None when there was nothing to do."""
        if self._masks.has_waiting:
            self._take_compiled()
        while len(self._flights) < self.resolved.depth and not self._control.is_paused:
            plan = self.scheduler.schedule()
            if plan is None:
                break
            if self._record is not None:
                self._record.begin(plan)
            # Where masks and arithmetic share the cores, side by side they only hinder each other.
            early = self._next_masks() if self.executor.shares_cores and not self._flights else None
            self._flights.append((plan, self.executor.submit(plan)))
            if early is not None:
                self._give(early)
            elif len(self._flights) == 1 and not self.executor.shares_cores:
                self._give(self._next_masks())
            self.scheduler.settle()  # while the executor computes
        updates, self._updates = self._updates, []
        if self._flights:
            updates.extend(self._collect())
        elif not updates and not self._masks.has_waiting:
            return None
        return EngineOutputs(updates=updates, stats=self.scheduler.stats(), at_s=time.monotonic())

    def _take_compiled(self) -> None:
        """Queues what waited for its constraint; waits a little if there is nothing else to do."""
        is_idle = not (self._flights or self._updates or self.scheduler.has_work())
        for request, error in self._masks.take_ready(_COMPILE_LOOK_S if is_idle else 0.0):
            if error is None:
                self._queue(request)
            else:
                self._refuse(request, error)

    def _next_masks(self) -> StepMasks | None:
        """Masks for the oldest step in flight: every token before it is known."""
        flight = self.scheduler.flights[0]
        return self._masks.of_step(flight.plan, flight.members, self.scheduler.places.requests)

    def _give(self, masks: StepMasks | None) -> None:
        if masks is not None:
            self._mask_errors = masks.errors
            self.executor.give_masks(self._flights[0][1], masks.bits)

    def _collect(self) -> list[SequenceUpdate]:
        plan, ticket = self._flights.popleft()
        try:
            result = self._result_of(ticket)
        except StepFailedError as error:
            return self._recover(plan, error)
        self._follow_rate(plan, result)
        self._control.on_step()
        for place, (sentence, is_refused) in self._mask_errors.items():
            result.rows[place] = RowResult(
                row=plan.rows[place], error=sentence, is_refused=is_refused
            )
        self._mask_errors = {}
        updates = self.scheduler.update(plan, result)
        if self._flights:
            self._give(self._next_masks())
        return updates

    def _recover(self, plan: StepPlan, error: StepFailedError) -> list[SequenceUpdate]:
        """A step raised: what was in flight behind it is void; the scheduler isolates who is to blame."""
        self._mask_errors = {}
        logger.error("step %d failed: %s", plan.step, error, exc_info=error.__cause__)
        plans = [plan]
        while self._flights:
            later, ticket = self._flights.popleft()
            plans.append(later)
            try:
                self._result_of(ticket)
            except StepFailedError:
                continue
        return self.scheduler.fail(plans, str(error))

    def _result_of(self, ticket: Ticket) -> StepResult:
        try:
            return self.executor.collect(ticket)
        finally:
            if self._record is not None:
                self._record.end()

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
        self.scheduler.settle()
        return self.scheduler.stats().blocks_in_use

    def reset_running(self) -> bool:
        """Forgets every cached block, those of live requests too, which compute theirs again."""
        while self._flights:
            self._updates += self._collect()
        self.scheduler.places.vacate()
        return self.scheduler.reset_prefix_cache()

    def pause(self) -> bool:
        """No step begins from now on; what is live keeps its place."""
        return self._control.pause()

    def hold_new(self) -> bool:
        """Requests that come from now on wait outside until `resume`."""
        return self._control.hold_new()

    def resume(self) -> bool:
        """Steps begin again, and what was held outside comes in."""
        for request in self._control.resume():
            self.add(request)
        return True

    def start_profile(self) -> str:
        """Begins a trace. Raises ValueError if none was asked for with --profiler-config."""
        return self._control.profiler.start()

    def stop_profile(self) -> str:
        """Ends the trace and writes it; the path of the file."""
        return self._control.profiler.stop()

    def start_layers(self) -> bool:
        """Begins sums for a layer table. Raises ValueError while a profile runs."""
        return self._control.profiler.start_layers()

    def stop_layers(self) -> str:
        """The layer table of the steps since then, as JSON."""
        return self._control.profiler.stop_layers()

    def engine_view(self) -> str:
        """An `EngineView` as JSON: the live requests and the cache, for somebody who looks."""
        return encode_view(engine_view(self.scheduler.places)).decode()

    def shutdown(self) -> None:
        self._masks.shutdown()
        self.executor.shutdown()

    def _compiler(
        self, settings: Settings, description: ModelDescription, eos_token_ids: tuple[int, ...]
    ) -> Compiler:
        return Compiler(
            read_constraint_options(settings.grammar).backend,
            Path(settings.model.tokenizer or description.path) / "tokenizer.json",
            description.spec.vocab_size,
            eos_token_ids,
        )

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
