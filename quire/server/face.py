"""What the server asks of the engine's streaming face, so that tests can put a scripted one in its place.

The real one is `quire.async_llm.AsyncLLM`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, Protocol

from quire.protocol.chat import ChatOptions, ChatPrompt
from quire.protocol.message import CallFrame, MessageReader, ReadOptions
from quire.protocol.outputs import EngineInfo, EngineStats
from quire.protocol.params import PoolingParams, SamplingParams
from quire.protocol.pooled_results import PoolingOutput, PoolingRequestOutput
from quire.protocol.pooler import Pooler
from quire.protocol.results import RequestOutput
from quire.server.control_face import ControlFace


class Decoder(Protocol):
    """The part of a tokenizer that the routes need; `settings` is tokenizer_config.json."""

    settings: dict[str, Any]

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """The token ids of a text. Raises InvalidRequestError for text that is not valid Unicode."""
        ...

    def convert_ids_to_tokens(self, ids: Sequence[int]) -> Any:
        """The vocabulary's own spelling of each id, None where there is no token."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token adds to a text."""
        ...

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        ...


class Face(ControlFace, Protocol):
    """An engine that serves, or will once `wait_ready` returns.

    short_turns  outputs of a step are handed out a few at a time, so that requests which come
                 meanwhile are answered in between; costs a tenth more for a token.
    """

    short_turns: bool

    @property
    def phase(self) -> tuple[str, int]:
        """What the engine does before it can serve, and how far it is in percent (-1: unknown)."""
        ...

    @property
    def info(self) -> EngineInfo:
        """What the engine says of itself."""
        ...

    @property
    def stats(self) -> EngineStats:
        """The engine's counters as of its last step."""
        ...

    @property
    def is_restarting(self) -> bool:
        """Whether requests wait because an engine died and another one starts."""
        ...

    @property
    def errored(self) -> bool:
        """Whether the engine is dead."""
        ...

    @property
    def dead_error(self) -> Exception:
        """Why it is dead."""
        ...

    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        """Blocks until the engine can serve. Raises SettingsError, ModelLoadError or EngineDeadError."""
        ...

    def default_sampling_values(self) -> Mapping[str, Any]:
        """Fields of SamplingParams that the model's generation config sets."""
        ...

    def generate(
        self,
        prompt: Any,
        sampling_params: SamplingParams | None,
        request_id: str,
        *,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
        strict: bool = False,
    ) -> AsyncGenerator[RequestOutput, None]:
        """The outputs of a request. Closing the generator aborts it.

        Raises InvalidRequestError at its first step, before anything is queued. `strict` refuses a
        max_tokens that does not fit in the context, and sizes beyond a client's limits.
        """
        ...

    @property
    def pooler(self) -> Pooler | None:
        """What the model pools; None if it generates."""
        ...

    async def prompts_of_data(
        self, data: Any, params: PoolingParams, request_id: str
    ) -> tuple[list[str | list[int]], PoolingParams]:
        """What the IO processor makes of data. Raises InvalidRequestError, RequestFailedError if it fails."""
        ...

    async def answer_of_data(
        self, outputs: Sequence[PoolingRequestOutput[PoolingOutput]], request_id: str
    ) -> Any:
        """What the IO processor makes of the outputs. Raises RequestFailedError."""
        ...

    def encode(
        self,
        prompt: Any,
        pooling_params: PoolingParams | None,
        request_id: str,
        *,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        cache_salt: str | None = None,
    ) -> AsyncGenerator[PoolingRequestOutput[PoolingOutput], None]:
        """What the model pools of a prompt: one output. Errors are as in `generate`."""
        ...

    async def render_chat(
        self, messages: Any, options: ChatOptions | None = None, *, truncates: bool = False
    ) -> ChatPrompt:
        """The prompt of a conversation; `truncates`: it will be cut, so it may be long.

        Raises InvalidRequestError with the place of what is wrong.
        """
        ...

    async def render_prompt(
        self,
        prompt: Any,
        tokenization_kwargs: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
    ) -> list[int]:
        """The token ids that `generate` would compute. Raises InvalidRequestError."""
        ...

    async def chat_template(self) -> str | None:
        """The text of the template that chats are rendered with; None where there is none."""
        ...

    async def open_readers(self, options: ReadOptions, count: int) -> list[MessageReader]:
        """A reader for each of `count` choices, as --reasoning-parser and --tool-call-parser say.

        Raises InvalidRequestError where the tools cannot be read in that form.
        """
        ...

    async def call_frame(self) -> CallFrame | None:
        """What the model writes around the arguments of a call, where --tool-call-parser tells that."""
        ...

    async def get_tokenizer(self) -> Decoder:
        """The tokenizer. Raises InvalidRequestError where there is none."""
        ...

    async def engine_view(self) -> str:
        """The engine's requests and cache at this moment: an `EngineView` as JSON."""
        ...

    def shutdown(self, timeout: float | None = None) -> None:
        """Ends the engine."""
        ...
