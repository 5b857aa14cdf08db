"""What a streaming engine does with a model that pools: one output for a prompt, long ones piece by piece.

A base of `quire.async_llm.AsyncLLM`; lists of prompts without asyncio are `quire.llm_pooling`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from quire.engine.client import EngineClient
from quire.frontend.inputs import InputProcessor, RequestOptions
from quire.frontend.long_texts import joined, pieces_of
from quire.frontend.prompts import read_prompt
from quire.frontend.streams import RequestStream
from quire.protocol.params import PoolingParams
from quire.protocol.pooled_results import PoolingOutput, PoolingRequestOutput
from quire.protocol.pooler import Pooler

Pooled = PoolingRequestOutput[PoolingOutput]


class AsyncPooling(ABC):
    """`encode`, over the requests of an `AsyncLLM`."""

    _client: EngineClient

    @abstractmethod
    async def _front(self) -> InputProcessor:
        """The checks of requests, once they are there."""

    @abstractmethod
    async def add_request(
        self,
        request_id: str,
        prompt: Any,
        params: Any = None,
        options: RequestOptions | None = None,
        *,
        prompt_text: str | None = None,
    ) -> RequestStream[Any]:
        """Hands a request to the engine."""

    @property
    def pooler(self) -> Pooler | None:
        """What the model pools; None if it generates."""
        pooling = self._client.description.pooling
        return None if pooling is None else pooling.pooler

    async def encode(
        self,
        prompt: Any,
        pooling_params: PoolingParams | None,
        request_id: str,
        *,
        lora_request: Any = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> AsyncGenerator[Pooled, None]:
        """What the model pools of a prompt: one output, at its end. Errors are as in `generate`.

        With enable_chunked_processing a text longer than the context is embedded in pieces.
        """
        params = pooling_params or PoolingParams()
        options = RequestOptions(
            priority=priority,
            cache_salt=cache_salt,
            tokenization_kwargs=tokenization_kwargs,
            lora_request=lora_request,
            trace_headers=trace_headers,
            strict=True,
        )
        pieces = await self._pieces(prompt, params, tokenization_kwargs or {})
        streams: list[RequestStream[Any]] = []
        try:
            for piece in pieces:
                streams.append(await self.add_request(request_id, piece, params, options))
            parts = [await anext(stream) for stream in streams]
        finally:
            for stream in streams:
                stream.close()
        yield parts[0] if len(parts) == 1 else self._joined(request_id, parts, params)

    async def prompts_of_data(
        self, data: Any, params: PoolingParams, request_id: str
    ) -> tuple[list[str | list[int]], PoolingParams]:
        """What the IO processor makes of data. Raises InvalidRequestError, RequestFailedError if it fails."""
        return await (await self._front()).data.prompts_async(data, params, request_id)

    async def answer_of_data(self, outputs: Sequence[Pooled], request_id: str) -> Any:
        """What the IO processor makes of the outputs. Raises RequestFailedError."""
        return await (await self._front()).data.result_async(outputs, request_id)

    async def _pieces(
        self, prompt: Any, params: PoolingParams, how: Mapping[str, Any]
    ) -> Sequence[Any]:
        """The prompt, or the ids of its pieces where it may be cut."""
        pooler = self.pooler
        whole = (
            pooler is None or not pooler.chunked or how.get("truncate_prompt_tokens") is not None
        )
        if pooler is None or whole or params.task not in (None, "embed"):
            return [prompt]
        inputs = await self._front()
        ids = await asyncio.to_thread(inputs.pooling.all_ids, read_prompt(prompt), how)
        return pieces_of(ids, pooler, inputs.max_model_len)

    def _joined(self, request_id: str, parts: list[Pooled], params: PoolingParams) -> Pooled:
        assert self.pooler is not None
        unit = (
            self.pooler.use_activation if params.use_activation is None else params.use_activation
        )
        return joined(request_id, parts, unit_length=unit)
