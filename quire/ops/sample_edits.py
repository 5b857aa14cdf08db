"""The operations that change logits before a choice: constraints, bias, bans, penalties.

Their order and what a request asks of them is `sampling.sampler`'s business; choosing is `ops.sample`.

All work on x [B, V] float32 in place and on the listed rows only, each from its own numbers alone.
Ids are int64 numpy arrays, one array for each listed row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from quire.ops.registry import Provider, declare, register

Ids = NDArray[np.int64]

MASK_BITS = declare(
    "mask_bits", "pure", "run(x [B,V] in place, rows, words) -> ids whose bit is 0 get -inf"
)
KEEP_IDS = declare("keep_ids", "pure", "run(x [B,V] in place, rows, ids) -> all other ids get -inf")
ADD_BIAS = declare(
    "add_bias", "pure", "run(x [B,V] in place, rows, ids, values) -> x[row, ids] += values"
)
BAN_IDS = declare(
    "ban_ids", "pure", "run(x [B,V] in place, rows, ids) -> ids get -inf unless none would be left"
)
PENALIZE = declare(
    "penalize",
    "pure",
    "run(x [B,V] in place, rows, seen, output, repetition, frequency, presence) -> penalties",
)


@register
class MaskBitsReference(Provider):
    op = "mask_bits"
    name = "reference"

    def run(
        self, x: torch.Tensor, rows: Sequence[int], words: Sequence[NDArray[np.uint32]]
    ) -> None:
        """words: for each row [ceil(V / 32)]; bit i % 32 of word i // 32 allows id i."""
        for row, packed in zip(rows, words, strict=True):
            raw = np.ascontiguousarray(packed).astype("<u4", copy=False).view(np.uint8)
            allowed = np.unpackbits(raw, count=x.shape[1], bitorder="little")
            x[row].masked_fill_(torch.from_numpy(allowed == 0).to(x.device), -math.inf)


@register
class KeepIdsReference(Provider):
    op = "keep_ids"
    name = "reference"

    def run(self, x: torch.Tensor, rows: Sequence[int], ids: Sequence[Ids]) -> None:
        """A row stays as it is if all its ids are -inf already: then an earlier mask wins."""
        for row, kept in zip(rows, ids, strict=True):
            index = torch.from_numpy(kept).to(x.device)
            values = x[row][index]
            if float(values.max()) > -math.inf:
                x[row].fill_(-math.inf)
                x[row][index] = values


@register
class AddBiasReference(Provider):
    op = "add_bias"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        ids: Sequence[Ids],
        values: Sequence[NDArray[np.float32]],
    ) -> None:
        """The ids of one row differ from each other."""
        for row, index, bias in zip(rows, ids, values, strict=True):
            places = torch.from_numpy(index).to(x.device)
            x[row][places] = x[row][places] + torch.from_numpy(bias).to(x.device)


@register
class BanIdsReference(Provider):
    op = "ban_ids"
    name = "reference"

    def run(self, x: torch.Tensor, rows: Sequence[int], ids: Sequence[Ids]) -> None:
        """A row stays as it is if the ban would leave it without any id."""
        for row, banned in zip(rows, ids, strict=True):
            index = torch.from_numpy(banned).to(x.device)
            values = x[row][index]
            x[row][index] = -math.inf
            if float(x[row].max()) == -math.inf:
                x[row][index] = values


@register
class PenalizeReference(Provider):
    op = "penalize"
    name = "reference"

    def run(
        self,
        x: torch.Tensor,
        rows: Sequence[int],
        *,
        seen: Sequence[Ids],
        output: Sequence[Ids],
        repetition: Sequence[float],
        frequency: Sequence[float],
        presence: Sequence[float],
    ) -> None:
        """Lowers what was there before: repetition first, then frequency and presence, in float32.

        seen    ids of prompt and output, in any order, repeats allowed: a positive logit is divided
                by the repetition penalty, any other multiplied (arXiv 1909.05858, section 4.1).
        output  ids of the output with repeats: x -= frequency * count, then x -= presence.
        """
        for at, row in enumerate(rows):
            line = x[row]
            if repetition[at] != 1.0 and len(seen[at]):
                index = torch.from_numpy(seen[at]).to(x.device)
                values = line[index]
                line[index] = torch.where(
                    values > 0, values / repetition[at], values * repetition[at]
                )
            if (frequency[at] != 0.0 or presence[at] != 0.0) and len(output[at]):
                ids, counts = np.unique(output[at], return_counts=True)
                index = torch.from_numpy(ids).to(x.device)
                # a product of its own: a fused multiply-add rounds once, and not in scalar tails
                lowering = torch.from_numpy(counts).to(x.device, torch.float32) * frequency[at]
                line[index] = line[index] - lowering - presence[at]
