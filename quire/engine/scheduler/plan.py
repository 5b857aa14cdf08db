"""A step plan while it is being made, and what must be remembered of one until its result is in.

Who gets into it is decided in `scheduler.scheduler`.
"""

from __future__ import annotations

from quire.engine.request import Sequence
from quire.protocol.step import BlockCopy, NewRow, RowGrowth, StepPlan


class Draft:
    """The lists of a plan being made.

    Rows that compute one token and sample are only added to `rows`, `starts` and `members`; `catch_up`
    fills `counts` and `samples` for all of them in one go.

    members  the sequences of `rows`, in order.
    sources  (group, block) that copies read; given back once the plan is made.
    leaders  sequences whose prompt is planned to the end here and whose request is not forked yet.
    """

    __slots__ = (
        "rows",
        "starts",
        "counts",
        "samples",
        "members",
        "new_rows",
        "growth",
        "copies",
        "sources",
        "leaders",
        "prompt_tokens",
    )

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.starts: list[int] = []
        self.counts: list[int] = []
        self.samples: list[bool] = []
        self.members: list[Sequence] = []
        self.new_rows: list[NewRow] = []
        self.growth: list[RowGrowth] = []
        self.copies: list[BlockCopy] = []
        self.sources: list[tuple[int, int]] = []
        self.leaders: list[Sequence] = []
        self.prompt_tokens = 0

    def add_new(self, sequence: Sequence) -> None:
        """The sequence takes its row with this plan: the worker gets it whole."""
        source = sequence.request.source
        # A prompt never changes, so that the plan may hold it; a list that grows is copied.
        is_started = len(sequence.token_ids) > sequence.num_prompt
        self.new_rows.append(
            NewRow(
                row=sequence.row,
                request_id=sequence.request_id,
                index=sequence.index,
                token_ids=sequence.token_ids.copy() if is_started else source.prompt_token_ids,
                num_prompt_tokens=sequence.num_prompt,
                params=source.params,
                seed=source.seed,
                block_ids=[table.copy() for table in sequence.tables],
                eos_token_ids=source.eos_token_ids,
                adapter=source.adapter,
                media=source.media,
                positions=source.positions,
                embeds=source.embeds,
                embed_rows=source.embed_rows,
                spans=source.spans,
                encoder=source.encoder,
                needs_mask=source.grammar is not None,
            )
        )

    def catch_up(self) -> None:
        """Brings `counts` and `samples` up to `rows`."""
        missing = len(self.rows) - len(self.counts)
        self.counts += [1] * missing
        self.samples += [True] * missing

    def add_row(self, sequence: Sequence, start: int, count: int) -> None:
        """The sequence computes `count` tokens from `start`, and samples if these are its last."""
        if len(self.counts) < len(self.rows):
            self.catch_up()
        end = start + count
        sequence.computed = end
        self.rows.append(sequence.row)
        self.starts.append(start)
        self.counts.append(count)
        self.members.append(sequence)
        if end == sequence.length:
            self.samples.append(True)
            sequence.length = end + 1
        else:
            self.samples.append(False)
        if start < sequence.num_prompt:
            self.prompt_tokens += min(end, sequence.num_prompt) - start
            if end >= sequence.num_prompt and not sequence.request.is_forked:
                self.leaders.append(sequence)

    def finish(self, step: int, freed_rows: list[int]) -> Flight:
        """The plan, with the step's number and the rows freed since the last one."""
        self.catch_up()
        plan = StepPlan(
            step=step,
            freed_rows=freed_rows,
            new_rows=self.new_rows,
            growth=self.growth,
            copies=self.copies,
            rows=self.rows,
            starts=self.starts,
            counts=self.counts,
            samples=self.samples,
        )
        return Flight(plan, self.members, self.prompt_tokens)


class Flight:
    """A plan whose result is not in, and the sequences of its rows."""

    __slots__ = ("plan", "members", "prompt_tokens")

    def __init__(self, plan: StepPlan, members: list[Sequence], prompt_tokens: int) -> None:
        self.plan = plan
        self.members = members
        self.prompt_tokens = prompt_tokens
