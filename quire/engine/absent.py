"""A client without an engine: what a front needs to render prompts, and nothing that computes.

Clients of real engines are `engine.client` and `engine.remote`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from quire.config.schema import Settings
from quire.engine.interface import EngineClient, OnDeath, OnOutputs
from quire.protocol.errors import EngineDeadError, SettingsError
from quire.protocol.outputs import EngineInfo, EngineOutputs
from quire.protocol.request import EngineRequest

_NONE = "there is no engine here: this server renders prompts and nothing else"


class AbsentClient(EngineClient):
    """Knows the model's description from config.json; weights are never looked at."""

    def __init__(self, settings: Settings) -> None:
        """Raises ModelLoadError, and SettingsError for a max_model_len that the model cannot have."""
        super().__init__(replace(settings, load=replace(settings.load, load_format="dummy")))
        limit, given = self.description.max_model_len, self.settings.model.max_model_len
        if given is not None and given > limit:
            raise SettingsError(
                f"max_model_len is {given}, but the model has {limit} positions; lower it"
            )
        self._info = EngineInfo(
            max_model_len=given if given is not None and given > 0 else limit,
            max_num_seqs=1,
            max_num_batched_tokens=1,
            block_size=1,
            num_blocks=0,
            capacity_tokens=0,
            cache_bytes=0,
            vocab_size=self.description.spec.vocab_size,
            dtype="none",
            fingerprint="",
            enable_prefix_caching=False,
        )
        self.phase = ("ready", 100)

    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        """Ready at once."""
        assert self._info is not None
        return self._info

    def add(self, request: EngineRequest) -> None:
        """Raises EngineDeadError."""
        raise EngineDeadError(_NONE)

    def abort(self, request_id: str, index: int | None = None) -> None:
        """Nothing is ever live."""

    def step(self) -> EngineOutputs | None:
        """There is never news."""
        return None

    def start(self, on_outputs: OnOutputs, on_death: OnDeath) -> None:
        """Nobody ever calls back."""

    def call(self, name: str) -> Any:
        """Raises ValueError."""
        raise ValueError(_NONE)

    def shutdown(self, timeout_s: float = 5.0) -> None:
        """Nothing is to be ended."""
