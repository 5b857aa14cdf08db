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

from quire.engine.grammar.backend import Compiled, GrammarError, Matcher
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


class MaskError(NamedTuple):
    """Why a row ends, and whether its constraint is to blame."""

    sentence: str
    is_refused: bool = True


class StepMasks(NamedTuple):
    """bits [rows that need one, ceil(V / 32)]; errors by place in the plan."""

    bits: NDArray[np.uint32]
    errors: dict[int, MaskError]


class _Row(NamedTuple):
    """A row of `bits` and of the plan, and what is to be written into it."""

    number: int
    place: int
    constraint: Constraint
    output_ids: list[int]


class Masks:
    """All constraints of one engine.

    vocab_size  rows of the model's head. threads: that may compute masks at once.
    """

    def __init__(self, make_compiler: MakeCompiler, *, vocab_size: int, threads: int = 1) -> None:
        self._threads = threads
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
        bits = np.empty((len(places), self._num_words), dtype=np.uint32)
        errors: dict[int, MaskError] = {}
        rows: list[_Row] = []
        for number, place in enumerate(places):
            end = plan.starts[place] + plan.counts[place]
            live = self._live.get(members[place].request_id)
            sequence = members[place]
            if live is None or sequence.valid_from > plan.step or len(sequence.token_ids) < end:
                bits[number] = ALL  # the result of this row is not for it
                continue
            output_ids = sequence.token_ids[sequence.num_prompt : end]
            rows.append(_Row(number, place, live.constraint(sequence.index), output_ids))
        self._fill_all(rows, bits, errors)
        return StepMasks(bits, errors)

    def _fill_all(
        self, rows: list[_Row], bits: NDArray[np.uint32], errors: dict[int, MaskError]
    ) -> None:
        """Writes the masks of rows into their rows of `bits`; `errors` by place in the plan."""
        started = time.perf_counter()
        kinds: dict[type[Matcher], list[tuple[_Row, Matcher]]] = {}
        for row in rows:
            try:
                matcher = row.constraint.begin(row.output_ids, bits[row.number])
            except Exception as error:
                _end_row(row, bits, errors, error)
                continue
            if matcher is not None:
                kinds.setdefault(type(matcher), []).append((row, matcher))
        for kind, pairs in kinds.items():
            numbers = [row.number for row, _ in pairs]
            try:
                kind.fill_all([matcher for _, matcher in pairs], bits, numbers, self._threads)
            except Exception as error:  # of one of them: each for itself, so that it ends alone
                logger.debug("masks are made one by one: %s", error)
                for row, _ in pairs:
                    _fill(row, bits, errors)
                continue
            for row, _ in pairs:
                try:
                    row.constraint.end(row.output_ids, bits[row.number])
                except Exception as error:
                    _end_row(row, bits, errors, error)
        if time.perf_counter() - started > MAX_MASK_S:
            self._find_slow(rows, bits, errors)

    def _find_slow(
        self, rows: list[_Row], bits: NDArray[np.uint32], errors: dict[int, MaskError]
    ) -> None:
        """Who took so long, if it was anybody: once more, each by the clock of this thread alone, which
        is too dear to be read for every mask. The machine may have been busy with others."""
        for row in rows:
            if row.place in errors:
                continue
            started = time.thread_time()
            _fill(row, bits, errors)
            spent = time.thread_time() - started
            if spent > MAX_MASK_S:
                bits[row.number] = ALL
                errors[row.place] = MaskError(
                    f"the constraint is too complex: a token took {spent * 1000:.0f} ms to check; the "
                    f"limit is {MAX_MASK_S * 1000:.0f} ms"
                )

    def shutdown(self) -> None:
        """Ends the thread that compiles; what it does now is not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)


def _fill(row: _Row, bits: NDArray[np.uint32], errors: dict[int, MaskError]) -> None:
    """Writes one row's mask."""
    try:
        row.constraint.fill(row.output_ids, bits[row.number])
    except Exception as error:
        _end_row(row, bits, errors, error)


def _end_row(
    row: _Row, bits: NDArray[np.uint32], errors: dict[int, MaskError], error: Exception
) -> None:
    """Ends a row with a sentence for what went wrong."""
    text = str(error)
    if not isinstance(error, GrammarError):
        logger.error("a mask failed", exc_info=error)
        text = type(error).__name__
    sentence = f"the output cannot follow its constraint: {text}"
    errors[row.place] = MaskError(sentence, isinstance(error, GrammarError))
    bits[row.number] = ALL
