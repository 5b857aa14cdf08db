"""What the server asks of the engine's streaming face, so that tests can put a scripted one in its place.

The real one is `quire.async_llm.AsyncLLM`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

from quire.protocol.outputs import EngineInfo, EngineStats
from quire.protocol.params import SamplingParams
from quire.protocol.results import RequestOutput


class Decoder(Protocol):
    """The part of a tokenizer that an echo needs."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        ...


class Face(Protocol):
    """An engine that can serve."""

    @property
    def info(self) -> EngineInfo:
        """What the engine says of itself."""
        ...

    @property
    def stats(self) -> EngineStats:
        """The engine's counters as of its last step."""
        ...

    @property
    def errored(self) -> bool:
        """Whether the engine is dead."""
        ...

    @property
    def dead_error(self) -> BaseException:
        """Why it is dead."""
        ...

    @property
    def generation_defaults(self) -> Mapping[str, Any]:
        """Sampling values of the model's generation config."""
        ...

    def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams | None,
        request_id: str,
        *,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        priority: int = 0,
        strict: bool = False,
    ) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of a request. Closing the generator aborts it.

        Raises InvalidRequestError at its first step, before anything is queued.
        strict  refuse a max_tokens that does not fit in the context, and sizes beyond a client's limits.
        """
        ...

    def get_tokenizer(self) -> Decoder:
        """The tokenizer. Raises InvalidRequestError where there is none."""
        ...

    def shutdown(self) -> None:
        """Ends the engine."""
        ...
