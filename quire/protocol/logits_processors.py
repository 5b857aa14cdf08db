"""What code of the operator must offer to change logits, and what it is told of the batch.

The interface is that of vLLM. Who calls it, and when, is `sampling.processors`; loading is `config.plugins`.
"""

from __future__ import annotations

import enum
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quire.protocol.params import SamplingParams

if TYPE_CHECKING:
    import torch

AddedRequest = tuple[int, SamplingParams, list[int] | None, list[int]]
"""(row, params, prompt ids or None for embeddings, output ids: a list that grows with the output)."""


class MoveDirectionality(enum.Enum):
    """Whether a move takes a row to a free place, or two rows change places."""

    UNIDIRECTIONAL = 0
    SWAP = 1


@dataclass(frozen=True)
class BatchUpdate:
    """What changed in the batch since the last step; rows are those of the logits.

    Apply `removed`, then `added`, then `moved` in their order. An added row replaces what was there.
    """

    batch_size: int
    removed: Sequence[int]
    added: Sequence[AddedRequest]
    moved: Sequence[tuple[int, int, MoveDirectionality]]


class LogitsProcessor(ABC):
    """Changes logits in every step, for all rows of the batch at once.

    A row's answer stays independent of its company only if `apply` computes each row from that row alone.
    """

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Raises ValueError for params that this processor cannot serve: the request is refused."""
        return None

    @abstractmethod
    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        """vllm_config is a `config.plugins.PluginConfig`."""

    @abstractmethod
    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits [rows, V] float32, changed in place or new ones of the same shape."""

    @abstractmethod
    def is_argmax_invariant(self) -> bool:
        """Whether the best id of a row is never changed: then greedy batches skip it, and it runs after
        the temperature instead of before the penalties. Asked once."""

    @abstractmethod
    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Called before each `apply`; None where nothing changed."""


RequestLogitsProcessor = (
    Callable[[list[int], "torch.Tensor"], "torch.Tensor"]
    | Callable[[list[int], list[int], "torch.Tensor"], "torch.Tensor"]
)
"""f(output ids, logits [V]) or f(prompt ids, output ids, logits [V]), which gives logits [V]."""


class AdapterLogitsProcessor(LogitsProcessor):
    """A processor made of one function for each request that wants one."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._calls: dict[int, Callable[[torch.Tensor], torch.Tensor]] = {}

    @abstractmethod
    def new_req_logits_processor(self, params: SamplingParams) -> RequestLogitsProcessor | None:
        """The function for a request with these params, or None."""

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Keeps one function a row."""
        if batch_update is None:
            return
        for row in batch_update.removed:
            self._calls.pop(row, None)
        for row, params, prompt_ids, output_ids in batch_update.added:
            self._calls.pop(row, None)
            function = self.new_req_logits_processor(params)
            if function is not None:
                self._calls[row] = _bound(function, prompt_ids or [], output_ids)
        for source, target, direction in batch_update.moved:
            moved, other = self._calls.pop(source, None), self._calls.pop(target, None)
            if moved is not None:
                self._calls[target] = moved
            if other is not None and direction is MoveDirectionality.SWAP:
                self._calls[source] = other

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Calls each row's function with a copy of its logits."""
        for row, call in self._calls.items():
            logits[row] = call(logits[row].clone())
        return logits


def _bound(
    function: Any, prompt_ids: list[int], output_ids: list[int]
) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function with the ids it asks for, by the number of its arguments."""
    if len(inspect.signature(function).parameters) == 3:
        return lambda logits: function(prompt_ids, output_ids, logits)
    return lambda logits: function(output_ids, logits)
