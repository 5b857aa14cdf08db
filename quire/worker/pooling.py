"""From hidden states to what pooling requests ask for: embeddings, classes, or rows for each token.

A prompt may come in pieces; what is kept between them does not depend on where it was cut.
The head's layers are `models.heads`; what a request may ask is checked in `frontend.pooling_inputs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from quire.models.decoder import AnyDecoder
from quire.models.heads import PoolingHead
from quire.ops.elementwise import TAKE_ROWS
from quire.ops.norm import RMS_NORM
from quire.ops.registry import Table
from quire.protocol.params import PoolingParams
from quire.protocol.pooler import BOTH, Pooler
from quire.protocol.request import TensorRef
from quire.protocol.step import NewRow, RowResult, StepPlan
from quire.worker.batch import Batch
from quire.worker.output import Masks
from quire.worker.state import WorkerState

_PIECE = 64  # tokens whose logits of all words are held at once
_TINY = 1e-24
"""Under a square of a length that counts as zero."""


@dataclass(slots=True)
class _Open:
    """What is known of a prompt whose end has not come: a sum [C] float64, or rows [n, N] float32."""

    new: NewRow
    total: NDArray[np.float64] | None = None
    rows: list[torch.Tensor] = field(default_factory=list)


class PooledOutput:
    """Collects the results of pooling rows. A row without PoolingParams asks for the first task.

    heads  by task; that of "" is for all others.
    """

    def __init__(
        self,
        *,
        state: WorkerState,
        decoder: AnyDecoder,
        table: Table,
        pooler: Pooler,
        heads: Mapping[str, PoolingHead],
        dtype: str,
    ) -> None:
        self._state = state
        self._decoder = decoder
        self._table = table
        self._pooler = pooler
        self._heads = heads
        self._default = PoolingParams(task=pooler.tasks[0])
        self._open: dict[int, _Open] = {}
        self._take = table.bind(TAKE_ROWS, dtype, C=decoder.spec.hidden_size)
        self._unit: dict[int, torch.Tensor] = {}

    def num_read(self, plan: StepPlan) -> NDArray[np.int64]:
        """As `worker.output.Output.num_read`."""
        found = np.zeros(len(plan.rows), dtype=np.int64)
        for place, count in enumerate(plan.counts):
            begin, end = self._span(plan, place)
            found[place] = count - begin if begin < end else 0
        return found

    def collect(self, batch: Batch, hidden: torch.Tensor, masks: Masks) -> list[RowResult]:
        """A RowResult for each row of the plan, in its order. hidden [T, C]."""
        plan = batch.plan
        needed = [self._needed(batch, place) for place in range(len(plan.rows))]
        states = self._normed(batch, hidden, np.concatenate(needed))
        ends = np.cumsum([len(one) for one in needed])
        whole: dict[int, torch.Tensor] = {}
        found: dict[int, TensorRef | None] = {}
        for place, end in enumerate(ends.tolist()):
            rows = states[end - len(needed[place]) : end]
            if self._pooler.is_sparse:
                self._words(batch, place, rows, found)
            elif self._params(plan.rows[place]).task in ("embed", "classify"):
                vector = self._sequence(batch, place, rows)
                if vector is not None:
                    whole[place] = vector
            else:
                self._tokens(batch, place, rows, found)
        if whole:
            self._whole(batch, whole, found)
        return [
            RowResult(row=row, pooled=found.get(place), nonfinite=found.get(place, 0) is None)
            for place, row in enumerate(plan.rows)
        ]

    def _params(self, row: int) -> PoolingParams:
        params = self._state.row(row).new.params
        return params if isinstance(params, PoolingParams) else self._default

    def _needed(self, batch: Batch, place: int) -> NDArray[np.int64]:
        """The packed tokens of a row whose states its task reads."""
        begin, end = self._span(batch.plan, place)
        first = int(batch.query_start[place])
        return np.arange(first + begin, first + end)

    def _span(self, plan: StepPlan, place: int) -> tuple[int, int]:
        """Where they begin and end among the tokens that the plan has of the row."""
        begin, end = 0, plan.counts[place]
        if self._params(plan.rows[place]).task in ("embed", "classify"):
            if self._pooler.pooling == "last":
                begin = end - 1 if plan.samples[place] else end
            elif self._pooler.pooling == "cls":
                end = 1 if plan.starts[place] == 0 else 0
        return begin, end

    def _normed(
        self, batch: Batch, hidden: torch.Tensor, needed: NDArray[np.int64]
    ) -> torch.Tensor:
        """[len(needed), C] float32, behind the final norm."""
        if not len(needed):
            return torch.empty((0, hidden.shape[1]), dtype=torch.float32)
        arena = batch.context.arena
        index = torch.from_numpy(needed).to(hidden.device)
        taken = self._take(
            hidden, index, out=arena.take((len(needed), hidden.shape[1]), hidden.dtype)
        )
        return self._decoder.normed(taken, batch.context).to(torch.float32)

    def _kept(self, batch: Batch, place: int) -> _Open:
        """What earlier pieces of the prompt left; nothing for a first piece."""
        row = batch.plan.rows[place]
        new = self._state.row(row).new
        kept = self._open.get(row)
        if kept is None or kept.new is not new or batch.plan.starts[place] == 0:
            kept = self._open[row] = _Open(new)
        return kept

    def _sequence(self, batch: Batch, place: int, rows: torch.Tensor) -> torch.Tensor | None:
        """The state [C] that stands for a sequence, once its last token was computed."""
        is_last = batch.plan.samples[place]
        if self._pooler.pooling == "last":
            return rows[0] if is_last else None
        skipped = 0
        if self._pooler.instruction is not None and self._pooler.pooling == "mean":
            # such prompts run whole
            ids = self._state.token_ids[batch.plan.rows[place], : len(rows)]
            skipped = self._pooler.instruction.length(ids.tolist())
            rows = rows[skipped:]
        kept = self._kept(batch, place)
        if self._pooler.pooling == "cls":
            kept.rows += [row.clone() for row in rows]
            if is_last:
                del self._open[batch.plan.rows[place]]
            return kept.rows[0] if is_last else None
        # One token after the other, so that it does not matter where the prompt was cut.
        wide = rows.numpy(force=True).astype(np.float64)
        if kept.total is not None:
            wide = np.concatenate((kept.total[None], wide))
        kept.total = np.add.reduce(wide, axis=0)
        if not is_last:
            return None
        del self._open[batch.plan.rows[place]]
        count = int(batch.starts[place] + batch.counts[place]) - skipped
        return torch.from_numpy((kept.total / count).astype(np.float32)).to(rows.device)

    def _words(
        self, batch: Batch, place: int, rows: torch.Tensor, found: dict[int, TensorRef | None]
    ) -> None:
        """Keeps the largest logit of each word; with the last piece, what they say is the result."""
        kept, row = self._kept(batch, place), batch.plan.rows[place]
        for begin in range(0, len(rows), _PIECE):
            most = self._heads[""](rows[begin : begin + _PIECE].clone()).amax(0)
            kept.rows = [most if not kept.rows else torch.maximum(kept.rows[0], most)]
        if batch.plan.samples[place]:
            del self._open[row]
            said = torch.log1p(torch.relu(kept.rows[0]))
            found[place] = _sent(self._finish(said, self._params(row)))

    def _whole(
        self, batch: Batch, whole: dict[int, torch.Tensor], found: dict[int, TensorRef | None]
    ) -> None:
        """What stands for texts, through the head and finished: embeddings that are asked for alike together."""
        made = self._heads[""](torch.stack(list(whole.values())))
        alike: dict[tuple[int | None, bool | None], list[int]] = {}
        places = list(whole)
        for at, place in enumerate(places):
            params = self._params(batch.plan.rows[place])
            if params.task == "embed":
                alike.setdefault((params.dimensions, params.use_activation), []).append(at)
            else:
                found[place] = _sent(self._finish(made[at], params))
        for ats in alike.values():
            params = self._params(batch.plan.rows[places[ats[0]]])
            for at, row in zip(ats, self._finish(made[ats], params), strict=True):
                found[places[at]] = _sent(row)

    def _tokens(
        self,
        batch: Batch,
        place: int,
        rows: torch.Tensor,
        found: dict[int, TensorRef | None],
    ) -> None:
        """Keeps the head's rows of this piece; with the last one, all of them are the result."""
        row = batch.plan.rows[place]
        params = self._params(row)
        whole = None
        if params.task == BOTH:
            ends = rows[-1:] if self._pooler.pooling == "last" else rows
            whole = self._sequence(batch, place, ends)
        kept = self._kept(batch, place)
        head = self._heads.get(str(params.task), self._heads[""])
        kept.rows.append(head(rows.clone()))
        if batch.plan.samples[place]:
            del self._open[row]
            made = self._inner(row, torch.cat(kept.rows), params)
            tag = self._pooler.step_tag_id if params.step_tag_id is None else params.step_tag_id
            if tag is not None and params.task == "token_classify":
                ids = self._state.token_ids[row, : len(made)]
                made = made[torch.from_numpy(np.flatnonzero(ids == tag))]
            numbers = self._finish(made, params)
            if whole is not None:  # prompts of such models run whole
                embedded = self._heads[""](whole[None])[0]
                asked = msgspec.structs.replace(params, task="embed")
                numbers = np.concatenate((self._finish(embedded, asked), numbers))
            found[place] = _sent(numbers)

    def _inner(self, row: int, made: torch.Tensor, params: PoolingParams) -> torch.Tensor:
        """The rows of tokens without the marks at the ends of a text; weights of tokens are numbers [n]."""
        if self._pooler.marks is None:
            return made
        ids, (begin, end) = self._state.token_ids[row, : len(made)], self._pooler.marks
        made = made[int(ids[0] == begin) :]
        if params.task == "token_embed":
            return made
        return made[: len(made) - int(len(made) > 0 and ids[-1] == end)].squeeze(-1)

    def _finish(self, made: torch.Tensor, params: PoolingParams) -> NDArray[np.float32]:
        """A row [N], or rows [n, N], as they were asked for."""
        pooler = self._pooler
        active = pooler.use_activation if params.use_activation is None else params.use_activation
        if params.task in ("embed", "token_embed"):
            size = params.dimensions or pooler.dimensions
            made = made if size is None else made[..., :size]
            made = self._unit_length(made.contiguous()) if active else made
        else:
            columns = params.returned_token_ids or pooler.returned_token_ids
            made = (made - pooler.logit_mean) / pooler.logit_sigma
            if active and pooler.activation == "softmax":
                made = torch.softmax(made.to(torch.float64), dim=-1).to(torch.float32)
            elif active and pooler.activation == "sigmoid":
                made = torch.sigmoid(made.to(torch.float64)).to(torch.float32)
            elif pooler.activation == "relu" and params.use_activation is not False:
                made = torch.relu(made)
            made = made if columns is None else made[..., list(columns)]
        numbers: NDArray[np.float32] = made.numpy(force=True).astype("<f4", copy=False)
        return numbers

    def _unit_length(self, rows: torch.Tensor) -> torch.Tensor:
        """x / |x| over the last axis: the root mean square without the mean."""
        size = rows.shape[-1]
        weight = self._unit.get(size)
        if weight is None:
            weight = self._unit[size] = torch.full((size,), size**-0.5, device=rows.device)
        if not rows.numel():
            return rows
        norm = self._table.bind(RMS_NORM, "float32", C=size)
        flat = rows.view(-1, size)
        return torch.as_tensor(norm(flat, weight, eps=_TINY, out=flat)).view(rows.shape)


def _sent(numbers: NDArray[np.float32]) -> TensorRef | None:
    """What goes to the front; None if a number is not finite."""
    if not np.isfinite(numbers).all():
        return None
    return TensorRef(dtype="float32", shape=tuple(numbers.shape), data=numbers.tobytes())
