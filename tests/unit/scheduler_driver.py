"""A scheduler with the fake worker of the simulation, stepped by hand.

The rules themselves are asserted in the tests that use it.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from quire.engine.scheduler.scheduler import Scheduler
from quire.protocol.cache import CacheGroup, CacheLayout
from quire.protocol.outputs import SequenceUpdate
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest
from quire.protocol.step import StepPlan
from tests.engine.simulation import FakeWorker, StepFailure, answer_of

BLOCK_SIZE = 8
FULL = CacheGroup(kind="full", layers=(0,), block_size=BLOCK_SIZE, bytes_per_token=4)


def window_group(window: int, bytes_per_token: int = 2) -> CacheGroup:
    """A sliding window over `window` tokens."""
    return CacheGroup(
        kind="sliding_window",
        layers=(1,),
        block_size=BLOCK_SIZE,
        bytes_per_token=bytes_per_token,
        window=window,
    )


def layout_of(*groups: CacheGroup, num_slabs: int = 256, slab_bytes: int = 32) -> CacheLayout:
    """Slabs of one full block unless told otherwise."""
    return CacheLayout(groups=groups or (FULL,), slab_bytes=slab_bytes, num_slabs=num_slabs)


class Driver:
    """Requests by name; what the front heard of each sequence is in `heard`."""

    def __init__(self, layout: CacheLayout | None = None, **settings: Any) -> None:
        self.layout = layout or layout_of()
        defaults = {"max_num_seqs": 8, "max_num_batched_tokens": 512, "max_model_len": 1024}
        self.max_model_len = (defaults | settings)["max_model_len"]
        self.scheduler = Scheduler(layout=self.layout, **(defaults | settings))
        self.salts: dict[str, str | None] = {}
        self.worker = FakeWorker(self.layout, self.salts)
        self.flights: deque[StepPlan] = deque()
        self.requests: dict[str, EngineRequest] = {}
        self.heard: dict[tuple[str, int], list[SequenceUpdate]] = {}
        self.computed = 0

    def add(self, name: str, prompt: list[int], **fields: Any) -> None:
        """Adds a request; keywords of SamplingParams go there, the others to the request."""
        known = set(SamplingParams.__struct_fields__)
        params = SamplingParams(**{k: v for k, v in fields.items() if k in known})
        request = EngineRequest(
            request_id=name,
            prompt_token_ids=prompt,
            params=params,
            **{k: v for k, v in fields.items() if k not in known},
        )
        self.scheduler.add(request)
        self.requests[name] = request
        self.salts[name] = request.cache_salt

    def plan(self) -> StepPlan | None:
        """The next plan, in flight from now on."""
        plan = self.scheduler.schedule()
        if plan is not None:
            self.flights.append(plan)
            self.computed += plan.num_tokens
        return plan

    def collect(self, fail: bool = False) -> list[SequenceUpdate]:
        """Carries out the oldest plan in flight, or lets it and those behind it fail."""
        plan = self.flights.popleft()
        try:
            result = self.worker.step(plan, fail)
        except StepFailure:
            plans = [plan, *self.flights]
            self.flights.clear()
            return self._hear(self.scheduler.fail(plans, "the step failed"))
        return self._hear(self.scheduler.update(plan, result))

    def step(self, fail: bool = False) -> StepPlan:
        """One step that must have something to do."""
        plan = self.plan()
        assert plan is not None
        self.collect(fail)
        self.scheduler.check_invariants()
        return plan

    def run(self, depth: int = 1, limit: int = 5000) -> None:
        """Steps until all is done."""
        for _ in range(limit):
            while len(self.flights) < depth and self.plan() is not None:
                pass
            if not self.flights:
                assert not self.scheduler.has_work()
                return
            self.collect()
            self.scheduler.check_invariants()
        raise AssertionError("no end in sight")

    def abort(self, name: str, index: int | None = None) -> list[SequenceUpdate]:
        """Ends a request or one of its sequences."""
        return self._hear(self.scheduler.abort(name, index))

    def _hear(self, updates: list[SequenceUpdate]) -> list[SequenceUpdate]:
        for update in updates:
            self.heard.setdefault((update.request_id, update.index), []).append(update)
        return updates

    def tokens(self, name: str, index: int = 0) -> list[int]:
        """Output that arrived so far."""
        return [t for update in self.heard.get((name, index), []) for t in update.token_ids]

    def finish_of(self, name: str, index: int = 0) -> str | None:
        """How a sequence ended, None if it did not."""
        news = self.heard.get((name, index))
        return news[-1].finish_reason if news else None

    def right(self, name: str, index: int = 0) -> tuple[list[int], str, Any]:
        """What should come out: output, finish_reason, stop_reason."""
        return answer_of(self.requests[name], index, self.max_model_len)

    def assert_right(self, *names: str) -> None:
        """Every sequence of these requests ended as it should, with the right output."""
        for name in names:
            params = self.requests[name].params
            assert isinstance(params, SamplingParams)
            for index in range(params.n):
                output, finish, reason = self.right(name, index)
                last = self.heard[name, index][-1]
                assert self.tokens(name, index) == output
                assert (last.finish_reason, last.stop_reason) == (finish, reason)
