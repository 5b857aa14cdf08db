"""One sequence's constraint: from its output so far to the mask of its next token.

Combines the grammar with thinking, end tokens and stop tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from quire.engine.grammar.backend import GrammarError, Matcher
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

    def fill(self, output_ids: list[int], mask: NDArray[np.uint32]) -> None:
        """Writes the ids that may follow the output into `mask` [ceil(V / 32)].

        Raises GrammarError where nothing can follow, or a limit is hit.
        """
        begin = self._thinking.over_at(output_ids) if self._waits or self._budget is not None else 0
        if begin is None and self._fill_thinking(output_ids, mask):
            return
        if self._matcher is None:
            mask[:] = ALL
            return
        begin = begin if self._waits and begin is not None else 0
        self._fill_answer(output_ids[begin:], mask)
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

    def _fill_answer(self, answer_ids: list[int], mask: NDArray[np.uint32]) -> None:
        """The grammar's mask, with end and stop tokens exactly where it may end."""
        matcher = self._matcher
        assert matcher is not None
        if len(answer_ids) < self._taken:
            matcher.rollback(self._taken - len(answer_ids))
        elif len(answer_ids) > self._taken:
            matcher.advance(answer_ids[self._taken :])
        self._taken = len(answer_ids)
        matcher.fill(mask)
        may_end = matcher.may_end
        stops = [one for one in self._stops if one not in self._ends]
        spelled = [one for one in stops if not may_end and _clear(mask, one)]
        for one in self._ends:
            _clear(mask, one)
        if may_end:
            if not self._keeps_on or not mask.any():
                for one in self._ends:
                    _set(mask, one)
            for one in stops:
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
