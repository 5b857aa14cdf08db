"""A server over an engine that says a given text, token by token, with the demo model's tokenizer and template."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import httpx
import msgspec

from quire.async_llm import AsyncLLM
from quire.config.demo import FOLDER
from quire.config.schema import ModelConfig, ParserConfig, SchedulerConfig, Settings
from quire.config.server import ServerConfig
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.outputs import EngineInfo, SequenceUpdate
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest, GrammarSpec
from quire.server.app import build_app
from quire.server.state import ServerState
from tests.server.scripted import Scripted, ScriptedClient, position
from tests.unit.fake_engine import INFO

MAX_LEN = 1024
VOCAB = json.loads((FOLDER / "config.json").read_text())["vocab_size"]
MODEL = "tiny"


class SayingClient(ScriptedClient):
    """Says `text`, then stops, or fails at token `break_at`; `prompts` are the texts it was asked.

    texts  what it says to the next requests, one after the other.
    """

    def __init__(self, settings: Settings, folder: str) -> None:
        super().__init__(settings, folder)
        self.tokenizer = Tokenizer.load(FOLDER)
        self._info = msgspec.structs.replace(INFO, max_model_len=MAX_LEN, vocab_size=VOCAB)
        self.text = "Hello."
        self.texts: list[str] = []
        self.prompts: list[str] = []
        self.params: list[SamplingParams] = []
        self.grammars: list[GrammarSpec | None] = []
        self.requests: list[EngineRequest] = []
        self.break_at: int | None = None

    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        return self._info

    def add(self, request: Any) -> None:
        self.prompts.append(self.tokenizer.decode(request.prompt_token_ids))
        self.params.append(request.params)
        self.grammars.append(request.grammar)
        self.requests.append(request)
        super().add(request)

    def _advance(self, key: tuple[str, int]) -> SequenceUpdate:
        request = self.live[key[0]]
        params = request.params
        assert isinstance(params, SamplingParams)
        place = self.given[key]
        if place == 0 and self.texts:
            self.text = self.texts.pop(0)
        ids = self.tokenizer.encode(self.text, False)
        self.given[key] += 1
        if self.given[key] == self.break_at:
            self._end(key)
            return SequenceUpdate(
                request_id=key[0], index=0, finish_reason="error", error="it broke at /tmp/secret"
            )
        token = ids[place] if place < len(ids) else 1
        reason = "stop" if place >= len(ids) else None
        if reason is None and self.given[key] == params.max_tokens:
            reason = "length"
        if reason is not None:
            self._end(key)
        logprobs = None if params.logprobs is None else [position(token, params.logprobs)]
        first: dict[str, Any] = {"num_cached_tokens": 2, "queued_s": 99.0, "scheduled_s": 99.5}
        return SequenceUpdate(
            request_id=key[0], index=key[1], token_ids=[token], finish_reason=reason,
            logprobs=logprobs, **(first if place == 0 else {}),
        )  # fmt: skip


class Saying(Scripted):
    """The server; `client.text` is what it says next."""

    client: SayingClient

    def __init__(self, *, reasoning: str = "", **server: Any) -> None:
        parsers = ParserConfig(
            reasoning_parser=reasoning, tool_call_parser="hermes", enable_auto_tool_choice=True
        )
        model = ModelConfig(model=str(FOLDER), served_model_name=[MODEL])
        order = SchedulerConfig(scheduling_policy="priority")
        self.settings = replace(Settings(), model=model, parsers=parsers, scheduler=order)
        self.client = SayingClient(self.settings, str(FOLDER))
        self.llm = AsyncLLM(self.client)
        self.llm.wait_ready()
        server.setdefault("responses_store", "memory")
        self.state = ServerState(self.settings, ServerConfig(**server), self.llm)
        self.app = build_app(self.state)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://127.0.0.1:8000",
            timeout=10,
        )

    async def first_output(self) -> None:
        """Makes the engine say a token to the request that is asked while its gate is shut."""
        while not self.client.live:
            await asyncio.sleep(0.005)
        before = self.state.admission.num_started
        self.client.step_once()
        while self.state.admission.num_started == before:
            await asyncio.sleep(0.005)


@asynccontextmanager
async def saying(**more: Any) -> AsyncIterator[Saying]:
    """A saying server, ended at the end."""
    made = Saying(**more)
    try:
        yield made
    finally:
        await made.http.aclose()
        made.llm.shutdown()


def talk(test: Callable[[Saying], Awaitable[Any]], **more: Any) -> Any:
    """Runs a test against a saying server, which must have nothing left of any request."""

    async def inside() -> Any:
        async with saying(**more) as server:
            result = await test(server)
            assert await server.is_clean(), "something is left of a request"
            return result

    return asyncio.run(inside())
