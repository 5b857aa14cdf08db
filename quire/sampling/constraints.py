"""Which ids a row may take at all: grammar mask, allowed ids, bad words, logit bias, minimum length.

Where the constraints of a row leave no id, the later one yields: a ban to the allowed ids, those to
the grammar. Making the mask is `engine.grammar`'s business.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from quire.ops.registry import Table
from quire.ops.sample_edits import (
    ADD_BIAS,
    BAN_IDS,
    KEEP_IDS,
    MASK_BITS,
)
from quire.sampling.row import SampleRow


class Constraints:
    """The bound operations that set logits to -inf or add a bias."""

    def __init__(self, table: Table, *, vocab_size: int) -> None:
        self._mask_bits = table.bind(MASK_BITS, "float32", V=vocab_size)
        self._keep_ids = table.bind(KEEP_IDS, "float32", V=vocab_size)
        self._add_bias = table.bind(ADD_BIAS, "float32", V=vocab_size)
        self._ban_ids = table.bind(BAN_IDS, "float32", V=vocab_size)

    def apply_masks(self, logits: torch.Tensor, rows: list[SampleRow], places: list[int]) -> None:
        """Grammar masks, in place, of the rows at `places`. logits [B, V]."""
        masked = [at for at in places if rows[at].mask is not None]
        if masked:
            self._mask_bits(logits, masked, [rows[at].mask for at in masked])

    def apply(self, logits: torch.Tensor, rows: list[SampleRow], places: list[int]) -> None:
        """All other constraints, in place, of the rows at `places`. logits [B, V]."""
        keeping = [at for at in places if rows[at].params.allowed_token_ids is not None]
        if keeping:
            kept = [_array(rows[at].params.allowed_token_ids) for at in keeping]
            self._keep_ids(logits, keeping, kept)
        biased = [at for at in places if rows[at].params.logit_bias]
        if biased:
            self._apply_bias(logits, rows, biased)
        bans = {at: banned_ids(rows[at]) for at in places}
        banning = [at for at in places if bans[at]]
        if banning:
            self._ban_ids(logits, banning, [_array(bans[at]) for at in banning])

    def _apply_bias(self, logits: torch.Tensor, rows: list[SampleRow], biased: list[int]) -> None:
        biases = [rows[at].params.logit_bias or {} for at in biased]
        ids = [_array(list(bias)) for bias in biases]
        values = [np.array(list(bias.values()), dtype=np.float32) for bias in biases]
        self._add_bias(logits, biased, ids, values)


def banned_ids(row: SampleRow) -> list[int]:
    """The ids that end a bad word here, and below `min_tokens` those that end the sequence; sorted."""
    params = row.params
    banned: set[int] = set()
    if row.output_position < params.min_tokens:
        banned.update(row.eos_token_ids, params.stop_token_ids)
    for word in params.bad_words_ids:
        if word and _ends_with(row.output_ids, word[:-1]):
            banned.add(word[-1])
    return sorted(banned)


def _ends_with(ids: NDArray[np.integer], tail: list[int]) -> bool:
    return not tail or (len(ids) >= len(tail) and ids[-len(tail) :].tolist() == tail)


def _array(ids: list[int] | None) -> NDArray[np.int64]:
    return np.array(ids or [], dtype=np.int64)
