"""One sequence's constraint: from its output so far to the mask of its next token.

Combines the grammar with thinking, end tokens and stop tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quire.engine.grammar.backend import GrammarError, Matcher, with_ids
from quire.engine.grammar.thinking import Thinking
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest

ALL = np.uint32(0xFFFFFFFF)


class Constraint:
    """A pure function of the output, so that it can be made anew at any point of it.

    matcher  None where only the length of the thinking is bounded.
    """

    def __init__(self, request: EngineRequest, matcher: Matcher | None) -> None:
        assert isinstance(request.params, SamplingParams)
        self._matcher = matcher
        self._budget = request.params.thinking_token_budget
        self._ends = request.eos_token_ids
        self._stops = request.params.stop_token_ids
        self._keeps_on = request.params.ignore_eos
        grammar = request.grammar
        self._waits = grammar is not None and bool(grammar.starts_after_ids)
        self._thinking = Thinking(request.start_of_thinking_ids, request.end_of_thinking_ids)
        self._taken = 0
        self._end_bits: NDArray[np.uint32] | None = None

    def fill(self, output_ids: list[int], mask: NDArray[np.uint32]) -> None:
        """Writes the ids that may follow the output into `mask` [ceil(V / 32)].

        Raises GrammarError where nothing can follow, or a limit is hit.
        """
        matcher = self.begin(output_ids, mask)
        if matcher is not None:
            matcher.fill(mask)
            self.end(output_ids, mask)

    def begin(self, output_ids: list[int], mask: NDArray[np.uint32]) -> Matcher | None:
        """The matcher that fills `mask` before `end` is called; None if the mask is written already."""
        begin = self._thinking.over_at(output_ids) if self._waits or self._budget is not None else 0
        if begin is None and self._fill_thinking(output_ids, mask):
            return None
        matcher = self._matcher
        if matcher is None:
            mask[:] = ALL
            return None
        num_known = len(output_ids) - (begin if self._waits and begin is not None else 0)
        if num_known < self._taken:
            matcher.rollback(self._taken - num_known)
        elif num_known > self._taken:
            matcher.advance(output_ids[len(output_ids) - num_known + self._taken :])
        self._taken = num_known
        return matcher

    def end(self, output_ids: list[int], mask: NDArray[np.uint32]) -> None:
        """Completes a mask that the matcher has filled. Raises GrammarError where nothing can follow."""
        assert self._matcher is not None
        self._matcher.settle(mask)
        self._finish_answer(mask, may_end=self._matcher.may_end)
        first = self._thinking.may_start(output_ids) if self._waits else None
        if first is not None:
            _set(mask, first)

    def _fill_thinking(self, output_ids: list[int], mask: NDArray[np.uint32]) -> bool:
        """The mask inside the thinking; False where the grammar holds there, too."""
        if self._budget is not None and (self._waits or self._matcher is None):
            forced = self._thinking.forced(output_ids, self._budget)
            if forced is not None:
                mask[:] = 0
                _set(mask, forced)
                return True
        following = self._thinking.may_start(output_ids)
        if following is not None and output_ids and self._waits:
            mask[:] = 0
            _set(mask, following)
            return True
        if following is None and self._waits:
            mask[:] = ALL
            return True
        return False

    def _finish_answer(self, mask: NDArray[np.uint32], *, may_end: bool) -> None:
        """The grammar's mask, with end and stop tokens exactly where it may end."""
        if self._end_bits is None:
            self._end_bits = with_ids(len(mask), self._ends)
            self._stops = [one for one in self._stops if one not in self._ends]
        spelled = [one for one in self._stops if not may_end and _clear(mask, one)]
        mask &= ~self._end_bits
        if may_end:
            if not self._keeps_on or not mask.any():
                mask |= self._end_bits
            for one in self._stops:
                _set(mask, one)
        elif not mask.any():
            for one in spelled:  # nothing else can go on: better the stop token than nothing
                _set(mask, one)
        if not mask.any():
            raise GrammarError(
                "no token of this model can go on where the constraint stands"
                if not may_end
                else "the constraint is complete, but there is no token that could end the output"
            )


def _set(mask: NDArray[np.uint32], token_id: int) -> None:
    mask[token_id // 32] |= np.uint32(1 << token_id % 32)


def _clear(mask: NDArray[np.uint32], token_id: int) -> bool:
    """Takes an id out; whether it was in."""
    bit = np.uint32(1 << token_id % 32)
    was = bool(mask[token_id // 32] & bit)
    mask[token_id // 32] &= ~bit
    return was
