"""A step plan while it is being made, and what must be remembered of one until its result is in.

Who gets into it is decided in `scheduler.scheduler`.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from quire.engine.request import Sequence
from quire.protocol.outputs import EngineStats
from quire.protocol.step import BlockCopy, NewRow, RowGrowth, StepPlan


class Draft:
    """The lists of a plan being made.

    odd      (place, count, is_sampled) of rows that do not compute one token and sample the next.
    members  the sequences of `rows`, in order.
    sources  (group, block) that copies read; given back once the plan is made.
    encodes  row -> tokens that the encoder reads for it.
    leaders  sequences whose prompt is planned to the end here and whose request is not forked yet.
    """

    __slots__ = (
        "rows",
        "starts",
        "odd",
        "members",
        "new_rows",
        "growth",
        "copies",
        "sources",
        "leaders",
        "encodes",
        "prompt_tokens",
    )

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.starts: list[int] = []
        self.odd: list[tuple[int, int, bool]] = []
        self.members: list[Sequence] = []
        self.new_rows: list[NewRow] = []
        self.growth: list[RowGrowth] = []
        self.copies: list[BlockCopy] = []
        self.sources: list[tuple[int, int]] = []
        self.leaders: list[Sequence] = []
        self.encodes: dict[int, int] = {}
        self.prompt_tokens = 0

    def encoder_cost(self, sequence: Sequence, budget: int) -> int:
        """Tokens that the encoder reads before the sequence's first ones; -1 if that is too much for this step.

        The first that a step reads always fits, or it would wait for ever beside running sequences.
        """
        cost = 0 if sequence.is_fork else sequence.request.encoder_len
        return cost if cost < budget or not self.encodes else -1

    def add_new(self, sequence: Sequence, encoder_cost: int = 0) -> None:
        """The sequence takes its row with this plan: the worker gets it whole."""
        if encoder_cost:
            self.encodes[sequence.row] = encoder_cost
        new_row = sequence.request.new_row
        # A prompt never changes, so that the plan may hold it; a list that grows is copied.
        is_started = len(sequence.token_ids) > sequence.num_prompt
        self.new_rows.append(
            replace(
                new_row,
                row=sequence.row,
                index=sequence.index,
                token_ids=sequence.token_ids.copy() if is_started else new_row.token_ids,
                block_ids=[table.copy() for table in sequence.tables],
            )
        )

    def add_row(self, sequence: Sequence, start: int, count: int) -> bool:
        """The sequence computes `count` tokens from `start`; whether it samples: if these are its last."""
        end = start + count
        num_prompt = sequence.num_prompt
        is_last = end == sequence.length
        self.rows.append(sequence.row)
        self.starts.append(start)
        self.members.append(sequence)
        sequence.computed = end
        if is_last:
            sequence.length = end + 1
        if count > 1 or not is_last:
            self.odd.append((len(self.rows) - 1, count, is_last))
        if start < num_prompt:
            self.prompt_tokens += (end if end < num_prompt else num_prompt) - start
            if end >= num_prompt and not sequence.request.is_forked:
                self.leaders.append(sequence)
        return is_last

    def finish(self, step: int, freed_rows: list[int]) -> Flight:
        """The plan, with the step's number and the rows freed since the last one."""
        counts, samples = [1] * len(self.rows), [True] * len(self.rows)
        for place, count, is_sampled in self.odd:
            counts[place] = count
            samples[place] = is_sampled
        plan = StepPlan(
            step=step,
            freed_rows=freed_rows,
            new_rows=self.new_rows,
            growth=self.growth,
            copies=self.copies,
            rows=self.rows,
            starts=self.starts,
            counts=counts,
            samples=samples,
            encodes=self.encodes,
        )
        return Flight(plan, self.members, self.prompt_tokens + sum(self.encodes.values()))


def extents(flights: Iterable[Flight]) -> tuple[dict[Sequence, int], dict[Sequence, int]]:
    """Where each sequence of some plans begins in them, and where it ends, in tokens."""
    first: dict[Sequence, int] = {}
    reached: dict[Sequence, int] = {}
    for flight in flights:
        plan = flight.plan
        for sequence, start, count in zip(flight.members, plan.starts, plan.counts, strict=True):
            first[sequence] = min(start, first.get(sequence, start))
            reached[sequence] = max(start + count, reached.get(sequence, 0))
    return first, reached


class Flight:
    """A plan whose result is not in, and the sequences of its rows."""

    __slots__ = ("plan", "members", "prompt_tokens")

    def __init__(self, plan: StepPlan, members: list[Sequence], prompt_tokens: int) -> None:
        self.plan = plan
        self.members = members
        self.prompt_tokens = prompt_tokens

    def count(self, stats: EngineStats, num_quiet: int, elapsed_s: float) -> None:
        """Adds the step to the counters; `num_quiet` tokens that were not counted one by one."""
        stats.generation_tokens += num_quiet
        stats.prompt_tokens_computed += self.prompt_tokens
        stats.steps += 1
        stats.step_tokens += self.plan.num_tokens
        stats.step_s += elapsed_s
