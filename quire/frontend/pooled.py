"""The state of one live pooling request on this side of the engine, and what the user gets of it.

Requests that generate are `frontend.outputs`, which keeps both.
"""

from __future__ import annotations

from quire.protocol.outputs import SequenceUpdate
from quire.protocol.pooled_results import Numbers, PoolingOutput, PoolingRequestOutput
from quire.protocol.request import EngineRequest, TensorRef

_NOTHING = TensorRef(dtype="float32", shape=(0,), data=b"")


class PooledRequest:
    """One request; it has one output, at its end."""

    def __init__(self, request: EngineRequest, external_id: str) -> None:
        self.external_id = external_id
        self.finished = False
        self._request = request
        self._pooled = _NOTHING
        self._num_cached_tokens = 0
        self._error: str | None = None

    def take(self, update: SequenceUpdate, at_s: float) -> bool:
        """Works an update in; never asks for an abort."""
        self._pooled = update.pooled or self._pooled
        self._num_cached_tokens = update.num_cached_tokens or self._num_cached_tokens
        self._error = update.error or self._error
        self.finished = update.finish_reason is not None
        return False

    def end_all(self, reason: str) -> None:
        """Ends it without a result."""
        self.finished = True
        self._error = f"the request ended before its result came ({reason})"

    def output(self) -> PoolingRequestOutput[PoolingOutput] | None:
        """What the user gets; None before the end."""
        if not self.finished:
            return None
        return PoolingRequestOutput(
            request_id=self.external_id,
            outputs=PoolingOutput(Numbers(self._pooled)),
            prompt_token_ids=self._request.prompt_token_ids,
            num_cached_tokens=self._num_cached_tokens,
            finished=True,
            error=self._error,
        )
