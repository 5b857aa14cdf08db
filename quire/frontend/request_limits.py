"""How much a request may ask for: sizes that a client of a server may choose, and ids of the vocabulary.

Called by `frontend.inputs`; ranges of single fields are checked in `protocol.params`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quire.protocol.checks import refuse, shown
from quire.protocol.params import SamplingParams


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a client of a server may size; not applied to the owner of the process."""

    stop_strings: int = 16
    stop_chars: int = 256
    logit_biases: int = 1024
    bad_words: int = 128
    bad_word_chars: int = 256
    cache_salt_chars: int = 128


def check_vocabulary(name: str, ids: Sequence[int], vocab_size: int) -> None:
    """Raises InvalidRequestError for more ids than tokens, or one that is no token."""
    if len(ids) > vocab_size:
        refuse(name, f"{name} has {len(ids)} entries, but the model has only {vocab_size} tokens")
    wrong = [one for one in ids if not 0 <= one < vocab_size]
    if wrong:
        refuse(
            name,
            f"{name} has the token id {shown(wrong[0])}; ids must lie between 0 and {vocab_size - 1}",
        )


def check_sizes(params: SamplingParams, bounds: Limits) -> None:
    """Raises InvalidRequestError for lists and strings beyond the limits."""
    for name, most in (
        ("stop", bounds.stop_strings),
        ("logit_bias", bounds.logit_biases),
        ("bad_words", bounds.bad_words),
    ):
        if len(getattr(params, name) or ()) > most:
            refuse(name, f"{name} has {len(getattr(params, name))} entries; the limit is {most}")
    for name, most in (("stop", bounds.stop_chars), ("bad_words", bounds.bad_word_chars)):
        longest = max((len(one) for one in getattr(params, name)), default=0)
        if longest > most:
            refuse(name, f"{name} has a string of {longest} characters; the limit is {most}")
