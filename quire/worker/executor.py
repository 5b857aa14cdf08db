"""Hands plans to the device and gives tickets for their results.

The engine knows only this interface; how many tickets are in flight is the engine's choice.
"""

from __future__ import annotations

import logging
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quire.config.schema import Settings
from quire.models.loading.ahead import Ahead
from quire.models.loading.kept import ReadAhead
from quire.models.registry import ModelDescription
from quire.ops.cpu.library import library
from quire.ops.report import lines
from quire.ops.spans import Spans
from quire.protocol.cache import CacheLayout
from quire.protocol.step import StepPlan, StepResult
from quire.worker.worker import Worker

logger = logging.getLogger(__name__)


class StepFailedError(Exception):
    """A step raised; the cause is chained. Nothing of its result can be used."""


class Ticket:
    """A step in flight: its masks may come late, its result is there once.

    era  grows when a failure has been collected; plans made before that build on the failed step.
    """

    def __init__(self, plan: StepPlan, era: int) -> None:
        self.plan = plan
        self.era = era
        self._masks: queue.SimpleQueue[NDArray[np.uint32] | None] = queue.SimpleQueue()
        self._done = threading.Event()
        self._result: StepResult | None = None
        self._error: BaseException | None = None

    def give_masks(self, bits: NDArray[np.uint32] | None) -> None:
        self._masks.put(bits)

    def wait_masks(self) -> NDArray[np.uint32] | None:
        return self._masks.get()

    def finish(self, result: StepResult | None, error: BaseException | None = None) -> None:
        self._result, self._error = result, error
        self._done.set()

    def collect(self) -> StepResult:
        """Waits for the result. Raises StepFailedError if the step raised."""
        self._done.wait()
        if self._result is None:
            raise StepFailedError(f"{type(self._error).__name__}: {self._error}") from self._error
        return self._result


@dataclass(frozen=True)
class Watch:
    """Among the plans: what is to be told of operations from here on."""

    spans: Spans | None


class Executor(ABC):
    """Carries out steps in the order in which they were submitted.

    providers  (operation, signature, provider, refusals): the choices made when the model was built.
    shares_cores  whether steps are computed by the cores that plan them.
    kernels    the ISA of the native library that was loaded, empty without one; None if none was asked for.
    """

    providers: list[tuple[str, str, str, str]] = []
    kernels: str | None = None
    shares_cores: bool = True

    @abstractmethod
    def submit(self, plan: StepPlan) -> Ticket:
        """Starts a step; returns at once."""

    def give_masks(self, ticket: Ticket, bits: NDArray[np.uint32] | None) -> None:
        """Grammar bitmasks of the ticket's sampling rows that need one, [rows, ceil(V / 32)] uint32,
        bit 1 for an allowed token; the step waits for them before it samples."""
        ticket.give_masks(bits)

    def collect(self, ticket: Ticket) -> StepResult:
        """The result of a step, waiting for it. Raises StepFailedError if it raised, or if one did
        on which it builds."""
        return ticket.collect()

    def watch(self, spans: Spans | None) -> None:
        """From the step submitted next on, `spans` has what operations take; None ends it."""
        return

    @abstractmethod
    def shutdown(self) -> None:
        """Ends the device's thread; may be called twice."""


class LocalExecutor(Executor):
    """One worker on one compute thread, which also loads the model: OpenMP keeps a team per calling thread."""

    def __init__(
        self,
        *,
        settings: Settings,
        layout: CacheLayout,
        description: ModelDescription,
        cache_dtype: str,
        on_phase: Callable[[str, int], None],
        ahead: Ahead | ReadAhead | None = None,
    ) -> None:
        """Blocks until the model is loaded; then closes `ahead`. Raises what loading raises."""
        self._plans: queue.SimpleQueue[Ticket | Watch | None] = queue.SimpleQueue()
        self._loaded = threading.Event()
        self._error: BaseException | None = None
        self._era = 0
        self._void_era = -1
        self.shares_cores = settings.parallel.device == "cpu"
        self.worker: Worker | None = None

        def load() -> Worker:
            return Worker(
                settings=settings,
                layout=layout,
                description=description,
                cache_dtype=cache_dtype,
                on_phase=on_phase,
                ahead=ahead,
            )

        self._thread = threading.Thread(
            target=self._run, args=(load,), name="quire-compute", daemon=True
        )
        self._thread.start()
        self._loaded.wait()
        if ahead is not None:
            ahead.close()
        if self._error is not None:
            raise self._error
        assert self.worker is not None
        self.providers = lines(self.worker.table)
        loaded = library()
        self.kernels = loaded.isa if loaded else ""

    def _run(self, load: Callable[[], Any]) -> None:
        try:
            worker = self.worker = load()
        except BaseException as error:
            self._error = error
            return
        finally:
            self._loaded.set()
        while (ticket := self._plans.get()) is not None:
            if isinstance(ticket, Watch):
                try:
                    worker.watch(ticket.spans)
                except Exception:
                    logger.exception("this profile has no names of operations")
                continue
            if ticket.era == self._void_era:
                ticket.finish(None, RuntimeError("void: a step before it failed"))
                continue
            try:
                ticket.finish(worker.step(ticket.plan, ticket.wait_masks))
            except Exception as error:
                self._void_era = ticket.era
                ticket.finish(None, error)

    def submit(self, plan: StepPlan) -> Ticket:
        ticket = Ticket(plan, self._era)
        if self._thread.is_alive() and self.worker is not None:
            self._plans.put(ticket)
        else:
            ticket.finish(None, RuntimeError("the engine was shut down"))
        return ticket

    def watch(self, spans: Spans | None) -> None:
        self._plans.put(Watch(spans))

    def collect(self, ticket: Ticket) -> StepResult:
        try:
            return super().collect(ticket)
        except StepFailedError:
            self._era = ticket.era + 1
            raise

    def shutdown(self) -> None:
        self._plans.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=10.0)
        self.worker = None
