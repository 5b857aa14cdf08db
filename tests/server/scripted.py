"""A server over a scripted engine, with the real front: what goes over the wire, without a model.

Sequence `index` of a prompt gets the tokens that `tests.unit.fake_engine.tokens_of` says, one a step.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from quire.async_llm import AsyncLLM
from quire.config.schema import ModelConfig, Settings
from quire.config.server import ServerConfig
from quire.engine.client import OnDeath, OnOutputs
from quire.protocol.outputs import EngineOutputs, EngineStats, SequenceUpdate
from quire.protocol.params import SamplingParams
from quire.protocol.step import PositionLogprobs
from quire.server.app import build_app
from quire.server.state import ServerState
from tests.checkpoints import VOCAB_SIZE
from tests.unit.fake_engine import FakeClient

MAX_LEN = 64  # of fake_engine.INFO
TEXT_TOKEN = 40  # below it are special tokens and controls of the byte-level vocabulary


def position(token: int, best: int) -> PositionLogprobs:
    """Log-probabilities that follow from the ids: -id/100 for the chosen one, then the best below it."""
    others = [(token + 1 + rank) % VOCAB_SIZE for rank in range(best)]
    ids = [token, *others]
    return PositionLogprobs(ids, [-one / 100 for one in ids], list(range(1, len(ids) + 1)))


class ScriptedClient(FakeClient):
    """The fake engine with log-probabilities, times and counters."""

    def __init__(self, settings: Settings, folder: str) -> None:
        super().__init__(settings, folder, fail_on=[13, 13])
        self.description.generation_defaults = {}
        self.stats = EngineStats()
        self.clock_s = 99.5
        self.on_outputs: OnOutputs | None = None

    def step(self) -> EngineOutputs | None:
        news = super().step()
        if news is None:
            return None
        self.clock_s += 0.5
        tokens = sum(len(update.token_ids) for update in news.updates)
        self.stats = replace_stats(
            self.stats, num_running=len(self.live), steps=self.stats.steps + 1,
            step_tokens=self.stats.step_tokens + tokens, cache_usage=0.25 if self.live else 0.0,
        )  # fmt: skip
        return EngineOutputs(updates=news.updates, stats=self.stats, at_s=self.clock_s)

    def step_once(self) -> None:
        """One step while the gate is shut."""
        news = self.step()
        assert news is not None and self.on_outputs is not None
        self.on_outputs(news)

    def start(self, on_outputs: OnOutputs, on_death: OnDeath) -> None:
        self.on_outputs = on_outputs
        super().start(on_outputs, on_death)

    def _advance(self, key: tuple[str, int]) -> SequenceUpdate:
        request = self.live[key[0]]
        params = request.params
        assert isinstance(params, SamplingParams)
        first = self.given[key] == 0
        update = super()._advance(key)
        changes: dict[str, Any] = {}
        if params.logprobs is not None:
            changes["logprobs"] = [position(one, params.logprobs) for one in update.token_ids]
        if first:
            changes |= {"queued_s": 99.0, "scheduled_s": 99.5, "num_cached_tokens": 2}
            if params.prompt_logprobs is not None:
                ids = request.prompt_token_ids[1:]
                changes["prompt_logprobs"] = [position(one, params.prompt_logprobs) for one in ids]
        return SequenceUpdate(
            **{name: getattr(update, name) for name in update.__struct_fields__} | changes
        )


def replace_stats(stats: EngineStats, **changes: Any) -> EngineStats:
    """The same stats but for some fields."""
    return EngineStats(**{name: getattr(stats, name) for name in stats.__struct_fields__} | changes)


class Scripted:
    """One server in this process: `http` speaks to it, `client` is the engine under it."""

    def __init__(self, folder: Path, *, settings: Settings | None = None, **server: Any) -> None:
        given = settings or Settings()
        model = replace(
            given.model,
            model=str(folder),
            served_model_name=given.model.served_model_name or ["tiny"],
        )
        self.settings = replace(given, model=model)
        self.client = ScriptedClient(self.settings, str(folder))
        self.llm = AsyncLLM(self.client)
        self.llm.wait_ready()
        self.state = ServerState(self.settings, ServerConfig(**server), self.llm)
        self.app = build_app(self.state)
        self.http = httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://127.0.0.1:8000",
            timeout=10,
        )

    async def post(self, body: Any = None, **more: Any) -> httpx.Response:
        """POST /v1/completions; a dict goes as JSON, bytes as they are."""
        if isinstance(body, dict):
            return await self.http.post("/v1/completions", json=body, **more)
        headers = {"content-type": "application/json", **more.pop("headers", {})}
        return await self.http.post("/v1/completions", content=body, headers=headers, **more)

    async def is_clean(self) -> bool:
        """Whether nothing is left of any request, within two seconds."""
        for _ in range(200):
            if (
                not self.client.live
                and not self.llm.num_unfinished_requests
                and not self.state.num_live
            ):
                return True
            await asyncio.sleep(0.01)
        return False

    def series(self, name: str, **labels: str) -> float:
        """The value of one series; the sum over all that match."""
        self.state.take_stats()
        total, found = 0.0, False
        for family in self.state.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total, found = total + sample.value, True
        assert found, f"no series {name} {labels}"
        return total if not math.isnan(total) else 0.0


@asynccontextmanager
async def scripted(folder: Path, **more: Any) -> AsyncIterator[Scripted]:
    """A scripted server, ended at the end."""
    made = Scripted(folder, **more)
    try:
        yield made
    finally:
        await made.http.aclose()
        made.llm.shutdown()


def settings(**model: Any) -> Settings:
    """Settings with these model fields."""
    return Settings(model=ModelConfig(**model))
