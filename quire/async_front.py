"""What a streaming engine's front does without its engine: prompts to token ids, and readers of answers.

Requests themselves are `quire.async_llm`, whose class this one is a base of.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from quire.frontend.inputs import InputProcessor
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.chat import ChatOptions, ChatPrompt
from quire.protocol.errors import InvalidRequestError
from quire.protocol.message import CallFrame, MessageReader, ReadOptions
from quire.protocol.outputs import EngineInfo


class FrontOnly(ABC):
    """Rendering and reading; waits until the front has been built."""

    _inputs: InputProcessor | None

    @abstractmethod
    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        """Blocks until the front has been built and the engine serves."""

    async def _front(self) -> InputProcessor:
        if self._inputs is None:
            await asyncio.to_thread(self.wait_ready)
        assert self._inputs is not None
        return self._inputs

    async def render_chat(
        self, messages: Any, options: ChatOptions | None = None, *, truncates: bool = False
    ) -> ChatPrompt:
        """The prompt of a conversation, ready for `generate` as token ids.

        truncates  whether it will be cut to the context; otherwise a long one is refused early.
        Raises InvalidRequestError with the place of what is wrong.
        """
        inputs = await self._front()
        return await asyncio.to_thread(inputs.render_chat, messages, options, truncates=truncates)

    async def render_prompt(
        self,
        prompt: Any,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
    ) -> list[int]:
        """The token ids that `generate` would compute. Raises InvalidRequestError."""
        inputs = await self._front()
        return await asyncio.to_thread(
            inputs.render_prompt, prompt, tokenization_kwargs, max_tokens
        )

    async def chat_template(self) -> str | None:
        """The text of the template that chats are rendered with; None where there is none."""
        inputs = await self._front()
        return inputs.chat_template

    async def open_readers(self, options: ReadOptions, count: int) -> list[MessageReader]:
        """A reader for each of `count` choices, as --reasoning-parser and --tool-call-parser say."""
        inputs = await self._front()
        return inputs.readers.open(options, count)

    async def call_frame(self) -> CallFrame | None:
        """What the model writes around the arguments of a call, where --tool-call-parser tells that."""
        inputs = await self._front()
        return inputs.readers.frame

    async def get_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises InvalidRequestError where skip_tokenizer_init left it out."""
        inputs = await self._front()
        if inputs.tokenizer is None:
            raise InvalidRequestError(
                "there is no tokenizer: the engine was started with skip_tokenizer_init"
            )
        return inputs.tokenizer

    def default_sampling_values(self) -> dict[str, Any]:
        """The fields of SamplingParams that the model's makers recommend; waits until ready."""
        self.wait_ready()
        assert self._inputs is not None
        return dict(self._inputs.defaults)
