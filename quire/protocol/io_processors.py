"""The class that a plug-in derives from to take data of its own, in the place of prompts, to a model that pools.

How it is found is `config.plugins`, when it is called `frontend.data_prompts`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from quire.protocol.params import PoolingParams


class IOProcessor(ABC):
    """Makes prompts of data, and an answer of what was pooled. Methods are called from several threads at once.

    The names are vLLM's. Where a method that ends in `_async` is overridden, it is the one that servers call.
    """

    def __init__(self, vllm_config: Any, renderer: Any = None) -> None:
        """vllm_config  a `config.plugins.PluginConfig`. renderer  None: there is no such object here."""
        self.vllm_config = vllm_config
        self.renderer = renderer

    def parse_data(self, data: Any) -> Any:
        """The checked data, as `pre_process` takes it. ValueError and TypeError refuse the request."""
        parse = getattr(self, "parse_request", None)  # its name in older plug-ins
        return parse(data) if callable(parse) else data

    def merge_pooling_params(self, params: PoolingParams | None = None) -> PoolingParams:
        """The params of the prompts, of those of the request."""
        return params or PoolingParams()

    @abstractmethod
    def pre_process(self, prompt: Any, request_id: str | None = None, **kwargs: Any) -> Any:
        """One prompt, or a list of prompts: text, token ids, or dictionaries of either."""

    async def pre_process_async(
        self, prompt: Any, request_id: str | None = None, **kwargs: Any
    ) -> Any:
        """The same in a server; in a thread unless it is overridden."""
        return await asyncio.to_thread(self.pre_process, prompt, request_id, **kwargs)

    @abstractmethod
    def post_process(
        self, model_output: Sequence[Any], request_id: str | None = None, **kwargs: Any
    ) -> Any:
        """The answer of the outputs, a PoolingRequestOutput for each prompt; for servers, what JSON can say."""

    async def post_process_async(
        self, model_output: Sequence[Any], request_id: str | None = None, **kwargs: Any
    ) -> Any:
        """The same in a server; in a thread unless it is overridden."""
        return await asyncio.to_thread(self.post_process, model_output, request_id, **kwargs)
