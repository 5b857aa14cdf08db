"""What the stages of sampling know of a row, and what comes out.

The stages themselves are the other files of this folder.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quire.protocol.params import SamplingParams
from quire.protocol.step import PositionLogprobs


@dataclass(slots=True)
class SampleRow:
    """A sequence that gets a token.

    seed             64 bits, never missing: the front draws one where the user gave none.
    index            which of the request's n sequences.
    output_position  how many output tokens there are already.
    prompt_ids, output_ids  integer arrays; views of the worker's state, not modified.
    eos_token_ids    banned below `min_tokens`, with the stop token ids.
    mask             [ceil(V / 32)] of a grammar: bit i % 32 of word i // 32 allows id i; or None.
    """

    params: SamplingParams
    seed: int
    index: int
    output_position: int
    prompt_ids: NDArray[np.integer]
    output_ids: NDArray[np.integer]
    eos_token_ids: tuple[int, ...]
    mask: NDArray[np.uint32] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its token is the argmax of the raw logits and nothing else is asked."""
        params = self.params
        return (
            params.temperature == 0.0
            and self.mask is None
            and params.logprobs is None
            and params.logprob_token_ids is None
            and params.repetition_penalty == 1.0
            and params.frequency_penalty == 0.0
            and params.presence_penalty == 0.0
            and self.output_position >= params.min_tokens
            and not params.logit_bias
            and params.allowed_token_ids is None
            and not params.bad_words_ids
        )


@dataclass(slots=True)
class Sampled:
    """The outcome of a row. `token_id` means nothing where `nonfinite` is set: nothing was sampled."""

    token_id: int
    logprobs: PositionLogprobs | None
    nonfinite: bool
