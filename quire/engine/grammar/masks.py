"""The engine's side of constraints: requests wait here until theirs is compiled, and steps get masks.

Works on the engine's thread; only compiling is done on another, so that nobody waits for it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Container
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from quire.engine.grammar.backend import Compiled, GrammarError
from quire.engine.grammar.compiler import Compiler
from quire.engine.grammar.constraint import ALL, Constraint
from quire.engine.request import Sequence, needs_mask
from quire.protocol.request import EngineRequest
from quire.protocol.step import StepPlan

logger = logging.getLogger(__name__)

MAX_MASK_S = 0.05
"""Computing time of one mask; a constraint that needs more ends its request."""

MakeCompiler = Callable[[tuple[int, ...]], Compiler]
"""Called with the end tokens, at the first request that has a constraint."""


class _Live:
    """A request with masks, and the constraints of its sequences by index."""

    def __init__(self, request: EngineRequest, compiled: Compiled | None) -> None:
        self.request = request
        self.compiled = compiled
        self.constraints: dict[int, Constraint] = {}

    def constraint(self, index: int) -> Constraint:
        found = self.constraints.get(index)
        if found is None:
            matcher = self.compiled.matcher() if self.compiled is not None else None
            found = self.constraints[index] = Constraint(self.request, matcher)
        return found


class StepMasks(NamedTuple):
    """bits [rows that need one, ceil(V / 32)]; errors by place in the plan."""

    bits: NDArray[np.uint32]
    errors: dict[int, str]


class Masks:
    """All constraints of one engine. vocab_size is the number of rows of the model's head."""

    def __init__(self, make_compiler: MakeCompiler, *, vocab_size: int) -> None:
        self._make_compiler = make_compiler
        self._num_words = (vocab_size + 31) // 32
        self._compiler: Compiler | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._waiting: dict[str, tuple[EngineRequest, Future[Compiled]]] = {}
        self._live: dict[str, _Live] = {}

    @property
    def has_waiting(self) -> bool:
        """Whether a request waits for its constraint."""
        return bool(self._waiting)

    def admit(self, request: EngineRequest) -> bool:
        """Whether a request can be scheduled now; otherwise `take_ready` gives it back."""
        if request.grammar is None:
            if needs_mask(request):
                self._live[request.request_id] = _Live(request, None)
            return True
        if self._compiler is None:
            self._compiler = self._make_compiler(request.eos_token_ids)
        compiled = self._compiler.find(request.grammar)
        if compiled is not None:
            self._live[request.request_id] = _Live(request, compiled)
            return True
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quire-grammar")
        future = self._pool.submit(self._compiler.compile, request.grammar)
        self._waiting[request.request_id] = request, future
        return False

    def take_ready(self, patience_s: float = 0.0) -> list[tuple[EngineRequest, str | None]]:
        """Requests whose constraint is compiled, in order of arrival, and what went wrong with it.

        patience_s  how long to wait if none is there.
        """
        if patience_s and self._waiting:
            wait([future for _, future in self._waiting.values()], patience_s, "FIRST_COMPLETED")
        ready: list[tuple[EngineRequest, str | None]] = []
        for name, (request, future) in list(self._waiting.items()):
            if not future.done():
                continue
            del self._waiting[name]
            error = future.exception()
            if error is None:
                self._live[name] = _Live(request, future.result())
                ready.append((request, None))
            elif isinstance(error, GrammarError):
                ready.append((request, f"the constraint cannot be used: {error}"))
            else:
                logger.error("compiling a constraint failed", exc_info=error)
                ready.append((request, f"compiling the constraint failed: {type(error).__name__}"))
        return ready

    def drop(self, request_id: str) -> bool:
        """Forgets a request that waits; False if it does not."""
        return self._waiting.pop(request_id, None) is not None

    def of_step(
        self, plan: StepPlan, members: list[Sequence], known: Container[str]
    ) -> StepMasks | None:
        """The masks of the plan's sampling rows that need one; None if none does.

        members  the sequences of the plan's rows. Every token before this step must be known.
        known    ids of the requests that are not finished.
        """
        if not self._live:
            return None
        for name in [name for name in self._live if name not in known]:
            del self._live[name]
        places = [
            place
            for place, (sequence, samples) in enumerate(zip(members, plan.samples, strict=True))
            if samples and sequence.request.new_row.needs_mask
        ]
        if not places:
            return None
        bits = np.full((len(places), self._num_words), ALL, dtype=np.uint32)
        errors: dict[int, str] = {}
        for mask, place in zip(bits, places, strict=True):
            end = plan.starts[place] + plan.counts[place]
            error = self._fill(members[place], end, plan.step, mask)
            if error is not None:
                errors[place] = error
                mask[:] = ALL
        return StepMasks(bits, errors)

    def _fill(
        self, sequence: Sequence, end: int, step: int, mask: NDArray[np.uint32]
    ) -> str | None:
        """Writes the mask of the token at position `end`; what went wrong, if anything did."""
        live = self._live.get(sequence.request_id)
        if live is None or sequence.valid_from > step or len(sequence.token_ids) < end:
            return None  # the result of this row is not for it
        output_ids = sequence.token_ids[sequence.num_prompt : end]
        constraint = live.constraint(sequence.index)
        started = time.perf_counter()
        try:
            constraint.fill(output_ids, mask)
            spent = time.perf_counter() - started
            if spent > MAX_MASK_S:
                # Perhaps the machine was busy with others: once more, by the clock of this thread alone,
                # which is too dear to be read for every mask.
                started = time.thread_time()
                constraint.fill(output_ids, mask)
                spent = time.thread_time() - started
        except GrammarError as error:
            return f"the output cannot follow its constraint: {error}"
        except Exception as error:
            logger.exception("a mask failed")
            return f"the output cannot follow its constraint: {type(error).__name__}"
        if spent > MAX_MASK_S:
            return (
                f"the constraint is too complex: a token took {spent * 1000:.0f} ms to check; the limit is "
                f"{MAX_MASK_S * 1000:.0f} ms"
            )
        return None

    def shutdown(self) -> None:
        """Ends the thread that compiles; what it does now is not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
