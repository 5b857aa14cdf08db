"""What the user gets back of a pooling request, in the forms of each task.

Numbers come as `PoolingOutput.data`; making it out of the engine's messages is `frontend.pooled`.
"""

from __future__ import annotations

import importlib
import sys
from array import array
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from quire.protocol.errors import RequestFailedError
from quire.protocol.request import TensorRef

T = TypeVar("T")


class Numbers:
    """Float32 numbers [N] or [n, N], as the engine sent them; `shape` is theirs."""

    __slots__ = ("raw", "shape")

    def __init__(self, tensor: TensorRef) -> None:
        self.raw = tensor.data
        self.shape = tensor.shape

    def flat(self) -> list[float]:
        """All of them in one list."""
        found = array("f")
        found.frombytes(self.raw)
        if sys.byteorder != "little":
            found.byteswap()
        return found.tolist()

    def tolist(self) -> Any:
        """A list of numbers, or of rows."""
        flat = self.flat()
        if len(self.shape) == 1:
            return flat
        width = self.shape[1]
        return [flat[at : at + width] for at in range(0, self.shape[0] * width, width)]


@dataclass(slots=True)
class PoolingOutput:
    """What was pooled; `numbers` are [N] for a text, [n, N] for its tokens."""

    numbers: Numbers

    @property
    def data(self) -> Any:
        """The numbers as a float32 tensor of torch, which is imported for it."""
        torch = importlib.import_module("torch")
        if not self.numbers.raw:  # which torch refuses
            return torch.empty(self.numbers.shape)
        flat = torch.frombuffer(bytearray(self.numbers.raw), dtype=torch.float32)
        return flat.view(self.numbers.shape)


@dataclass(slots=True)
class PoolingRequestOutput(Generic[T]):
    """The answer to one pooling request.

    num_cached_tokens  prompt tokens found in the prefix cache.
    error              a sentence in the place of `outputs`, which then cannot be used.
    """

    request_id: str
    outputs: T
    prompt_token_ids: list[int]
    num_cached_tokens: int
    finished: bool
    error: str | None = None

    def add(self, next_output: PoolingRequestOutput[T], aggregate: bool) -> None:
        """Takes a later output of the same request into this one; it replaces it."""
        self.outputs, self.finished = next_output.outputs, next_output.finished
        self.error = next_output.error or self.error

    def checked(self) -> PoolingRequestOutput[T]:
        """Itself. Raises RequestFailedError if the engine failed on it."""
        if self.error is not None:
            raise self.failure()
        return self

    def failure(self) -> RequestFailedError:
        """The error as an exception."""
        return RequestFailedError(self.error or "the request could not be carried out")


def _vector(pooled: PoolingOutput, what: str) -> list[float]:
    if len(pooled.numbers.shape) != 1:
        raise ValueError(
            f"{what} has one row of numbers, not the shape {list(pooled.numbers.shape)}; use encode"
        )
    return pooled.numbers.flat()


@dataclass(slots=True)
class EmbeddingOutput:
    """One embedding."""

    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        return len(self.embedding)


@dataclass(slots=True)
class ClassificationOutput:
    """A probability for each class."""

    probs: list[float]

    @property
    def num_classes(self) -> int:
        return len(self.probs)


@dataclass(slots=True)
class ScoringOutput:
    """How well two texts fit each other."""

    score: float


class EmbeddingRequestOutput(PoolingRequestOutput[EmbeddingOutput]):
    """The answer to a request for an embedding."""

    __slots__ = ()

    @classmethod
    def from_base(cls, base: PoolingRequestOutput[PoolingOutput]) -> EmbeddingRequestOutput:
        """Raises ValueError for rows of several tokens."""
        return _retyped(cls, base, EmbeddingOutput(_vector(base.outputs, "an embedding")))


class ClassificationRequestOutput(PoolingRequestOutput[ClassificationOutput]):
    """The answer to a request for classes."""

    __slots__ = ()

    @classmethod
    def from_base(cls, base: PoolingRequestOutput[PoolingOutput]) -> ClassificationRequestOutput:
        """Raises ValueError for rows of several tokens."""
        return _retyped(cls, base, ClassificationOutput(_vector(base.outputs, "a classification")))


class ScoringRequestOutput(PoolingRequestOutput[ScoringOutput]):
    """The answer to a request for a score."""

    __slots__ = ()

    @classmethod
    def from_base(cls, base: PoolingRequestOutput[PoolingOutput]) -> ScoringRequestOutput:
        """Raises ValueError for more than one number."""
        numbers = _vector(base.outputs, "a score")
        if len(numbers) != 1:
            raise ValueError(f"a score is one number, but the model gave {len(numbers)} classes")
        return _retyped(cls, base, ScoringOutput(numbers[0]))


R = TypeVar("R")


def _retyped(kind: type[R], base: PoolingRequestOutput[PoolingOutput], outputs: Any) -> R:
    return kind(
        base.request_id,
        outputs,
        base.prompt_token_ids,
        base.num_cached_tokens,
        base.finished,
        base.error,
    )  # type: ignore[call-arg]
