"""The operations that choose token ids: temperature, filters, the draw, the best entry.

Their order and what a request asks of them is `sampling.sampler`'s business; constraints and penalties
are `ops.sample_edits`, log-probabilities `ops.logprobs`.

All work on x [B, V] float32 and act on the listed rows only, each row from its own numbers alone, by
the rules of `ops.pieces`: neither the other rows, nor B, nor the number of threads change a bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from quire.ops.philox import Word, philox4x32
from quire.ops.pieces import PIECE, ids_from, in_pieces, kth_best, total, weights
from quire.ops.registry import Provider, declare, register

ARGMAX = declare(
    "argmax", "pure", "run(x [B,V], rows) -> best id of each row, ties to the lowest, and its value"
)
DIVIDE_ROWS = declare(
    "divide_rows", "pure", "run(x [B,V] in place, rows, divisors) -> x[row] /= divisor"
)
FILTER_ROWS = declare(
    "filter_rows",
    "pure",
    "run(x [B,V] in place, rows, min_p, top_k, top_p) -> ids outside get -inf",
)
GUMBEL_DRAW = declare(
    "gumbel_draw",
    "pure",
    "run(x [B,V], rows, seeds, positions, indices) -> a drawn id of each row, Philox4x32-10",
)
SAMPLE_ROWS = declare(
    "sample_rows",
    "pure",
    "run(x [B,V], rows, temperature, min_p, top_k, top_p, seeds, ...) -> ids and best entries",
)

SCORE_RANGE = 26.5
"""Gumbel values of 32-bit words lie in [-3.14, 22.88]: who is further behind can never win."""
_FIRST_TOP = 512  # candidates tried first for top-p; almost always enough


@register
class ArgmaxReference(Provider):
    op = "argmax"
    name = "reference"

    def run(
        self, x: torch.Tensor, rows: Sequence[int] | None = None
    ) -> tuple[list[int], list[float]]:
        """Id and value of the best entry of each row, ties to the lowest id; rows None is all.

        A row with a NaN gives NaN as its value. Looks at blocks of 1,024 first: six times as quick
        as one argmax over a row of 150,000 in torch 2.13.
        """
        if rows is not None and len(rows) < x.shape[0]:
            x = x[torch.tensor(rows, dtype=torch.int64, device=x.device)]
        if x.shape[0] == 0:
            return [], []
        width = 1024
        whole = x.shape[1] // width
        parts = [x[:, : whole * width].view(x.shape[0], whole, width).amax(2)] if whole else []
        if x.shape[1] > whole * width:
            parts.append(x[:, whole * width :].amax(1, keepdim=True))
        block = torch.cat(parts, 1).argmax(1, keepdim=True)  # [B, 1]
        places = (block * width + torch.arange(width, device=x.device)).clamp_(max=x.shape[1] - 1)
        inside = x.gather(1, places)  # [B, 1024]; the clamped end repeats the last entry
        first = inside.argmax(1, keepdim=True)
        ids = places.gather(1, first)[:, 0]
        return ids.tolist(), inside.gather(1, first)[:, 0].tolist()


@register
class DivideRowsReference(Provider):
    op = "divide_rows"
    name = "reference"

    def run(self, x: torch.Tensor, rows: Sequence[int], divisors: Sequence[float]) -> None:
        """A division in float32; rows with divisor 1 are not touched."""
        for row, divisor in zip(rows, divisors, strict=True):
            if divisor != 1.0:
                x[row].div_(divisor)


@register
class FilterRowsReference(Provider):
    op = "filter_rows"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        *,
        min_p: Sequence[float],
        top_k: Sequence[int],
        top_p: Sequence[float],
    ) -> None:
        """Sets to -inf, in this order, what each filter leaves out; the best id always stays.

        min_p  keeps probabilities of at least min_p times the best one; 0 is off. arXiv 2407.01082.
        top_k  keeps the k best, and those equal to the last of them; 0 is off.
        top_p  keeps the fewest best whose share of what is left reaches top_p, ties to the lowest
               id; 1 is off. arXiv 1904.09751.
        """
        for at, row in enumerate(rows):
            line = x[row]
            floor = -math.inf
            if min_p[at] > 0.0:
                floor = float(line.max()) + math.log(min_p[at])
            if 0 < top_k[at] < line.shape[0]:
                floor = max(floor, kth_best(line, top_k[at]))
            kept: torch.Tensor | None = None
            if floor > -math.inf:
                kept = ids_from(line, floor)
            if top_p[at] < 1.0:
                places = nucleus(line if kept is None else line[kept], top_p[at])
                kept = places if kept is None else kept[places]
            if kept is not None:
                values = line[kept]
                line.fill_(-math.inf)
                line[kept] = values


def nucleus(values: torch.Tensor, top_p: float) -> torch.Tensor:
    """Places of the fewest best of values [n] that have the share top_p of their probability.

    Sorts only as many as needed; the running sum has the same bits whichever size suffices.
    """
    mass = weights(values, float(values.max()))
    limit = top_p * total(mass)
    size = _FIRST_TOP
    while size < values.shape[0]:
        places = ids_from(values, kth_best(values, size))
        found = _share(values, mass, places, limit)
        if found is not None:
            return found
        size *= 16
    places = torch.arange(values.shape[0], device=values.device)
    found = _share(values, mass, places, limit)
    return places if found is None else found


def _share(
    values: torch.Tensor, mass: torch.Tensor, places: torch.Tensor, limit: float
) -> torch.Tensor | None:
    """The fewest best of `places` whose mass reaches the limit, or None if all together do not."""
    places = places[values[places].sort(descending=True, stable=True).indices]
    running = mass[places].to(torch.float64).cumsum(0)
    if float(running[-1]) < limit:
        return None
    return places[: 1 + int((running[:-1] < limit).sum())]


@register
class GumbelDrawReference(Provider):
    op = "gumbel_draw"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        *,
        seeds: Sequence[int],
        positions: Sequence[int],
        indices: Sequence[int],
    ) -> list[int]:
        """The id with the best x + g, g a Gumbel number of its own; ties to the lowest id.

        That draws from softmax(x). g = -log(-log(u)), u = (w + 1/2) / 2^32 in float64, w the first
        word of Philox4x32-10 with key = seed (low word, high word) and counter = (id, output
        position, choice index, 0). Ids at -inf are never drawn.
        seeds: 64 bits, negative ones as two's complement.
        """
        drawn: list[int] = []
        for some in self._groups(x, rows):
            counts = [len(ids) for _, ids in some]
            ids = torch.cat([ids for _, ids in some])  # [n], of all rows in the group
            chosen = range(len(drawn), len(drawn) + len(some))
            columns = (
                ids,
                _spread([positions[at] for at in chosen], counts, x.device),
                _spread([indices[at] for at in chosen], counts, x.device),
                _spread([seeds[at] & 0xFFFFFFFF for at in chosen], counts, x.device),
                _spread([seeds[at] >> 32 & 0xFFFFFFFF for at in chosen], counts, x.device),
            )
            noise = torch.cat([gumbel(part) for part in _parts(columns, len(ids))])
            scores = torch.cat([x[row][kept] for row, kept in some]).to(torch.float64).add_(noise)
            start = 0
            for count in counts:
                drawn.append(int(ids[start + int(scores[start : start + count].argmax())]))
                start += count
        return drawn

    def _groups(
        self, x: torch.Tensor, rows: Sequence[int]
    ) -> Iterator[list[tuple[int, torch.Tensor]]]:
        """Rows with the ids that can win; rows with few ids go together, which saves calls.

        That cannot change a bit: Philox is integers, the rest goes entry by entry through `ops.pieces`.
        """
        group: list[tuple[int, torch.Tensor]] = []
        size = 0
        for row in rows:
            line = x[row]
            ids = ids_from(line, float(line.max()) - SCORE_RANGE)
            if group and size + len(ids) > PIECE:
                yield group
                group, size = [], 0
            group.append((row, ids))
            size += len(ids)
        if group:
            yield group


@register
class SampleRowsReference(Provider):
    op = "sample_rows"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        *,
        temperature: Sequence[float],
        min_p: Sequence[float],
        top_k: Sequence[int],
        top_p: Sequence[float],
        seeds: Sequence[int],
        positions: Sequence[int],
        indices: Sequence[int],
    ) -> tuple[list[int], list[float]]:
        """Token id of each row, and its best entry divided by the temperature; x is not modified.

        Rows with temperature 0 take the argmax. For the others `divide_rows`, `filter_rows` and
        `gumbel_draw` act on a copy, with their arguments. The id of a row whose best entry is not
        finite means nothing.
        """
        ids, best = ArgmaxReference().run(x, rows)
        random = [
            at for at in range(len(rows)) if temperature[at] > 0.0 and math.isfinite(best[at])
        ]
        if not random:
            return ids, best
        picked = torch.tensor([rows[at] for at in random], device=x.device)
        copy = x[picked]
        DivideRowsReference().run(copy, range(len(random)), [temperature[at] for at in random])
        hottest = ArgmaxReference().run(copy)[1]
        for at, value in zip(random, hottest):
            best[at] = value
        places = [place for place, value in enumerate(hottest) if math.isfinite(value)]
        good = [random[place] for place in places]
        FilterRowsReference().run(
            copy,
            places,
            min_p=[min_p[at] for at in good],
            top_k=[top_k[at] for at in good],
            top_p=[top_p[at] for at in good],
        )
        drawn = GumbelDrawReference().run(
            copy,
            places,
            seeds=[seeds[at] for at in good],
            positions=[positions[at] for at in good],
            indices=[indices[at] for at in good],
        )
        for at, token_id in zip(good, drawn):
            ids[at] = token_id
        return ids, best


def _spread(numbers: list[int], counts: list[int], device: torch.device) -> Word:
    """Each number `counts` times, int64 [n]; one row's number stays a number."""
    if len(numbers) == 1:
        return numbers[0]
    repeats = torch.tensor(counts, device=device)
    return torch.tensor(numbers, device=device).repeat_interleave(repeats)


def _parts(columns: tuple[Word, ...], size: int) -> Iterator[list[Word]]:
    """The columns [n] in parts of PIECE entries, which stay in a core's cache."""
    for start in range(0, size, PIECE):
        part = slice(start, start + PIECE)
        yield [one if isinstance(one, int) else one[part] for one in columns]


def gumbel(columns: list[Word]) -> torch.Tensor:
    """Gumbel numbers float64 [n] for columns of id, position, index, low and high word of the seed."""
    token_id, position, index, low, high = columns
    words = philox4x32((token_id, position, index, 0), (low, high))[0]
    assert isinstance(words, torch.Tensor)
    uniform = words.to(torch.float64).add_(0.5).mul_(2.0**-32)
    return in_pieces(uniform, lambda u: u.log_().neg_().log_().neg_(), 0.5)[: len(words)]
