"""Philox4x32-10: random words as a pure function of a key and a counter, with no state.

What the words are used for is `ops.sample`'s business.
"""

from __future__ import annotations

import torch

_WORD = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

Word = torch.Tensor | int


def philox4x32(
    counter: tuple[Word, Word, Word, Word], key: tuple[Word, Word]
) -> tuple[Word, Word, Word, Word]:
    """The four output words of each counter under each key.

    counter, key  words of 32 bits, each a number or an int64 tensor; tensors have one shape [n].
    Returns numbers or int64 tensors [n]. Integers only, so every machine gives the same words.
    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3.3.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _product(c0, _MULTIPLIERS[0])
        high1, low1 = _product(c2, _MULTIPLIERS[1])
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _KEY_STEPS[0]) & _WORD, (k1 + _KEY_STEPS[1]) & _WORD
    return c0, c1, c2, c3


def _product(word: Word, factor: int) -> tuple[Word, Word]:
    """High and low word of a product; int64 wraps around 2^64, which keeps all 64 bits."""
    product = word * factor
    return (product >> 32) & _WORD, product & _WORD
