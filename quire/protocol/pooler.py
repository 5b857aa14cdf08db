"""What a pooling model makes of a prompt in place of text, as the front, the engine and the server see it.

How it is read from a checkpoint is `models.pooling`; the arithmetic is `worker.pooling`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

SequencePooling = Literal["cls", "last", "mean", "splade"]
ClassActivation = Literal["softmax", "sigmoid", "relu", "none"]
BOTH = "embed&token_classify"
"""The task whose result is an embedding and behind it the weight of each token."""

EMBED_TASKS = ("embed", "token_embed")
CLASSIFY_TASKS = ("classify", "token_classify")


@dataclass(frozen=True, kw_only=True)
class InstructionMarks:
    """Ids that tell where a text's instruction ends: what stands before does not count in its mean.

    begin  what every text begins with. opening: follows it where there is an instruction, which then ends
           with `closing`; without one `bare` follows.
    """

    begin: int
    opening: tuple[int, ...]
    closing: tuple[int, ...]
    bare: tuple[int, ...]

    def length(self, ids: Sequence[int]) -> int:
        """Tokens of the instruction: none without `begin`, and only that one where no mark is found."""
        if not len(ids) or ids[0] != self.begin:
            return 0
        text = tuple(int(one) for one in ids)
        mark = self.closing if text[1 : 1 + len(self.opening)] == self.opening else self.bare
        for at in range(1, len(text) - len(mark) + 1):
            if text[at : at + len(mark)] == mark:
                return at + len(mark)
        return 1


@dataclass(frozen=True, kw_only=True)
class Pooler:
    """What one model can do, and how it does it unless a request says otherwise.

    tasks           that are served; the first one is meant where a request names none.
    pooling         which hidden state stands for a sequence: of its first token, its last, or the mean; of
                    SPLADE what each word of the vocabulary says about it.
    width           numbers of an embedding, or of each token's.
    labels          name of each class; empty for a model without classes.
    use_activation  embeddings get length 1, and classes become probabilities.
    activation      what makes probabilities of classes.
    matryoshka      allowed `dimensions` of an embedding: () is any, None is none.
    dimensions      of embeddings where a request names none.
    step_tag_id, returned_token_ids  of process rewards: which tokens, and which classes.
    late_interaction  documents are compared with queries token by token.
    chunked         longer texts are embedded piece by piece; max_embed_len bounds them, in tokens.
    instruction  what a mean leaves out; None is nothing.
    marks           ids of the tokens at both ends of a text, of a model that weighs its words: the ends have no
                    weight, and the first has no vector. None where each token has all.
    logit_mean, logit_sigma  classes become (logit - mean) / sigma first.
    """

    tasks: tuple[str, ...]
    pooling: SequencePooling
    width: int
    labels: tuple[str, ...] = ()
    use_activation: bool = True
    activation: ClassActivation = "softmax"
    matryoshka: tuple[int, ...] | None = None
    dimensions: int | None = None
    step_tag_id: int | None = None
    returned_token_ids: tuple[int, ...] | None = None
    late_interaction: bool = False
    chunked: bool = False
    max_embed_len: int | None = None
    instruction: InstructionMarks | None = None
    marks: tuple[int, int] | None = None
    logit_mean: float = 0.0
    logit_sigma: float = 1.0

    @property
    def is_sparse(self) -> bool:
        """Whether an embedding has a number for each word, and two of them are compared by their product."""
        return self.pooling == "splade"

    @property
    def score_type(self) -> Literal["cross-encoder", "bi-encoder", "late-interaction"] | None:
        """How two texts are compared; None where they cannot be."""
        if "embed" in self.tasks:
            return "bi-encoder"
        if "token_embed" in self.tasks:
            return "late-interaction"
        return "cross-encoder" if len(self.labels) == 1 else None

    def reads_whole_prompt(self, task: str) -> bool:
        """Whether a task needs every token's hidden state, so that no prefix may come from the cache."""
        return task not in ("embed", "classify") or self.pooling != "last"
