"""What a front must keep of its live requests so that a new engine can go on with them.

Who may run after a death is `engine.supervision`; sending is `engine.client`.
"""

from __future__ import annotations

import hashlib

import msgspec

from quire.protocol.outputs import EngineOutputs, EngineStats, SequenceUpdate
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest


class Live:
    """One live request: what was asked, and what has come of it.

    received     output token ids by sequence.
    open         indices that have no finish reason.
    num_deaths   deaths of an engine that are charged to it.
    sent_as      its id in the engine that runs; None while it waits.
    """

    __slots__ = (
        "request",
        "received",
        "open",
        "num_deaths",
        "sent_as",
        "_num_sent",
        "_num_prompt_logprobs",
        "_num_to_skip",
    )

    def __init__(self, request: EngineRequest) -> None:
        num_sequences = request.params.n if isinstance(request.params, SamplingParams) else 1
        before = request.resume_ids or []
        self.request = request
        self.received = [
            list(before[index]) if index < len(before) else [] for index in range(num_sequences)
        ]
        self.open = set(range(num_sequences))
        self.num_deaths = 0
        self.sent_as: str | None = None
        self._num_sent = 0
        self._num_prompt_logprobs = 0
        self._num_to_skip = 0

    @property
    def num_received(self) -> int:
        """Output tokens of all sequences."""
        return sum(map(len, self.received))

    def digest(self) -> bytes:
        """Names what was asked, however often it is asked: prompt and parameters, not the seed."""
        request = self.request
        return hashlib.sha256(
            msgspec.msgpack.encode((request.prompt_token_ids, request.params))
        ).digest()

    def resumed(self) -> tuple[EngineRequest, list[int]]:
        """The request as the next engine gets it, under an id of its own, and the sequences to be ended
        there at once, as they have ended here."""
        request = self.request
        changes: dict[str, object] = {}
        if self._num_sent:
            changes["request_id"] = f"{request.request_id}~{self._num_sent}"
        self._num_sent += 1
        ended = sorted(set(range(len(self.received))) - self.open)
        if any(self.received):
            changes["resume_ids"] = [
                ids if index in self.open else [] for index, ids in enumerate(self.received)
            ]
        self._num_to_skip = self._num_prompt_logprobs
        if changes:
            request = msgspec.structs.replace(request, **changes)
        self.sent_as = request.request_id
        return request, ended

    def take(self, update: SequenceUpdate) -> SequenceUpdate:
        """Takes note of an update; returns it without what the front has already."""
        if update.token_ids:
            self.received[update.index] += update.token_ids
        if update.finish_reason is not None:
            self.open.discard(update.index)
        changes: dict[str, object] = {}
        if update.prompt_logprobs:
            known = min(self._num_to_skip, len(update.prompt_logprobs))
            self._num_to_skip -= known
            self._num_prompt_logprobs += len(update.prompt_logprobs) - known
            if known:
                changes["prompt_logprobs"] = update.prompt_logprobs[known:]
        if update.request_id != self.request.request_id:
            changes["request_id"] = self.request.request_id
        return msgspec.structs.replace(update, **changes) if changes else update


class Roster:
    """The live requests, in the order of their arrival. Use it under one lock."""

    def __init__(self) -> None:
        self.live: dict[str, Live] = {}
        self._sent: dict[str, Live] = {}

    def add(self, request: EngineRequest) -> Live:
        """A request that has come."""
        live = self.live[request.request_id] = Live(request)
        return live

    def send(self, live: Live) -> tuple[EngineRequest, list[int]]:
        """As `Live.resumed`; from now on its updates are known."""
        request, ended = live.resumed()
        self._sent[request.request_id] = live
        return request, ended

    def recall(self, live: Live) -> str:
        """It waits again: news of what was sent are nobody's. Returns the id to be ended in the engine."""
        name = live.sent_as
        assert name is not None
        del self._sent[name]
        live.sent_as = None
        return name

    def recall_all(self) -> list[Live]:
        """The engine is gone. Returns the requests that it had."""
        had = list(self._sent.values())
        for live in had:
            self.recall(live)
        return had

    @property
    def sent(self) -> list[Live]:
        """The requests that the engine has."""
        return list(self._sent.values())

    def end(self, request_id: str, index: int | None = None) -> Live | None:
        """Its front wants no more of a request, or of one sequence; None if it is not known."""
        live = self.live.get(request_id)
        if live is not None:
            live.open = set() if index is None else live.open - {index}
            self._forget_ended(live)
        return live

    def _forget_ended(self, live: Live) -> None:
        if not live.open:
            self.live.pop(live.request.request_id, None)
            if live.sent_as is not None:
                self._sent.pop(live.sent_as, None)

    def take(self, outputs: EngineOutputs) -> list[SequenceUpdate]:
        """The updates of a message as the front gets them, without those of what has ended there."""
        found = []
        for update in outputs.updates:
            live = self._sent.get(update.request_id)
            if live is None or update.index not in live.open:
                continue
            found.append(live.take(update))
            if update.finish_reason is not None:
                self._forget_ended(live)
        return found


_GAUGES = ("num_running", "num_waiting", "cache_usage", "blocks_in_use")


class RunningStats:
    """An engine's counters over all its lives; `now` are the last ones told."""

    def __init__(self) -> None:
        self.now = EngineStats()
        self._before = EngineStats()

    def add(self, stats: EngineStats) -> EngineStats:
        """Counters of the present life; returns those since the first."""
        before = self._before
        if before.restarts:
            stats.restarts = before.restarts
            for name in EngineStats.__struct_fields__:
                if name not in _GAUGES and name != "restarts":
                    setattr(stats, name, getattr(stats, name) + getattr(before, name))
        self.now = stats
        return stats

    def restart(self) -> None:
        """A new life begins, from zero and with nothing running."""
        changes = dict.fromkeys(_GAUGES, 0) | {"restarts": self._before.restarts + 1}
        self._before = self.now = msgspec.structs.replace(self.now, **changes)
