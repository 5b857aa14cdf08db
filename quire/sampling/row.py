"""What the stages of sampling know of a row, and what comes out.

The stages themselves are the other files of this folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
    has_embeds       the prompt was given as embeddings; prompt_ids are those of its tokens that have ids.
    mask             [ceil(V / 32)] of a grammar: bit i % 32 of word i // 32 allows id i; or None.

    What follows from the params is worked out when a row is made: they stay as they are.
    """

    params: SamplingParams
    seed: int
    index: int
    output_position: int
    prompt_ids: NDArray[np.integer]
    output_ids: NDArray[np.integer]
    eos_token_ids: tuple[int, ...]
    mask: NDArray[np.uint32] | None = None
    has_embeds: bool = False
    _is_always_edited: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        params = self.params
        self._is_always_edited = (
            params.repetition_penalty != 1.0
            or params.frequency_penalty != 0.0
            or params.presence_penalty != 0.0
            or bool(params.logit_bias)
            or params.allowed_token_ids is not None
            or bool(params.bad_words_ids)
        )

    @property
    def is_edited(self) -> bool:
        """Whether a constraint or a penalty may change its logits."""
        return (
            self._is_always_edited
            or self.mask is not None
            or self.output_position < self.params.min_tokens
        )


@dataclass(slots=True)
class Sampled:
    """The outcome of a row. `token_id` means nothing where `nonfinite` is set: nothing was sampled."""

    token_id: int
    logprobs: PositionLogprobs | None
    nonfinite: bool
