"""One turn of the engine: the plan that goes to every device and the result that comes back.

A plan carries differences only. Who runs is decided in `engine.scheduler`; what it means in tensors
is `worker.state` and `worker.batch`.
"""

from __future__ import annotations

import msgspec

from quire.protocol.params import PoolingParams, SamplingParams
from quire.protocol.request import AdapterRef, EncoderInput, MediaItem, TensorRef


class NewRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A sequence that takes a row: everything the worker must know of it.

    token_ids          all known tokens, prompt first, then output.
    num_prompt_tokens  how many of them are prompt.
    block_ids          [groups][blocks], in token order; NULL_BLOCK where a window has passed.
    index              which of the request's n sequences; part of the random counter.
    """

    row: int
    request_id: str
    index: int
    token_ids: list[int]
    num_prompt_tokens: int
    params: SamplingParams | PoolingParams
    seed: int
    block_ids: list[list[int]]
    eos_token_ids: tuple[int, ...] = ()
    adapter: AdapterRef | None = None
    media: tuple[MediaItem, ...] = ()
    positions: list[list[int]] | None = None
    embeds: TensorRef | None = None
    embed_rows: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    type_from: int | None = None
    encoder: EncoderInput | None = None
    needs_mask: bool = False


class BlockCopy(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Copy a block whole inside one group, before any row of the step runs."""

    group: int
    source: int
    target: int


class RowGrowth(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Blocks appended to a known row's tables: [groups][new block ids]."""

    row: int
    block_ids: list[list[int]]


class StepPlan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one step computes. Applied in this order: freed, new, growth, copies, then the rows run.

    rows     the rows that run, at most one entry a row.
    starts   position of the first token each row computes; its cache is filled below that.
    counts   tokens each row computes; its blocks reach at least starts + counts.
    samples  whether the row gives a new token after its last computed one. The token lands at position
             starts + counts, in the worker's own state too, so that the next plan may compute it before
             the engine has seen it.
    drafts   row -> proposed tokens to verify, counted in `counts`.
    encodes  row -> tokens that the encoder reads for it, whole, before the rows run.
    """

    step: int
    freed_rows: list[int] = []
    new_rows: list[NewRow] = []
    growth: list[RowGrowth] = []
    copies: list[BlockCopy] = []
    rows: list[int] = []
    starts: list[int] = []
    counts: list[int] = []
    samples: list[bool] = []
    drafts: dict[int, list[int]] = {}
    encodes: dict[int, int] = {}

    @property
    def num_tokens(self) -> int:
        """Tokens that the step computes, those that the encoder reads too."""
        return sum(self.counts) + sum(self.encodes.values())


class PositionLogprobs(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Log-probabilities at one position: the chosen token first, then the k best in falling order.

    logprobs are float32 values; ranks count from 1 among the whole vocabulary.
    """

    token_ids: list[int]
    logprobs: list[float]
    ranks: list[int]


class RowResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one row gave.

    prompt_logprobs  for the prompt tokens at positions starts+1 to starts+counts that exist, in order.
    error            a sentence; the row's request ends with it, its mates do not notice.
    is_refused       the error is the request's own, of what it asked for.
    nonfinite        the logits were not finite: nothing was sampled.
    """

    row: int
    token_ids: list[int] = []
    logprobs: list[PositionLogprobs] | None = None
    prompt_logprobs: list[PositionLogprobs] | None = None
    drafts: list[int] = []
    pooled: TensorRef | None = None
    error: str | None = None
    is_refused: bool = False
    nonfinite: bool = False


class StepResult(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a step gave, a RowResult for each planned row, in the plan's order. elapsed_s in seconds."""

    step: int
    rows: list[RowResult]
    elapsed_s: float = 0.0
