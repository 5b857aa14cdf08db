"""Drives an engine with requests of token ids and collects what each sequence gave, bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from quire.config.schema import (
    CacheConfig,
    LoadConfig,
    ModelConfig,
    ObservabilityConfig,
    ParallelConfig,
    SchedulerConfig,
    Settings,
    SupervisionConfig,
)
from quire.engine.client import EngineClient, make_client
from quire.protocol.outputs import EngineStats
from quire.protocol.params import SamplingParams
from quire.protocol.request import EngineRequest


@dataclass(frozen=True)
class Job:
    """One request, before it has an identity."""

    prompt: tuple[int, ...]
    params: dict[str, Any]
    seed: int

    def request(self, request_id: str, **changes: Any) -> EngineRequest:
        return EngineRequest(
            request_id=request_id,
            prompt_token_ids=list(self.prompt),
            params=SamplingParams(**self.params),
            seed=self.seed,
            **changes,
        )


@dataclass
class Collected:
    """Everything one sequence gave."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    prompt_logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    error: str | None = None
    stop_reason: int | str | None = None
    num_cached_tokens: int = 0

    @property
    def bits(self) -> tuple[Any, ...]:
        """What must never depend on anything but the request."""
        plain = [(p.token_ids, p.logprobs, p.ranks) for p in self.logprobs]
        prompt = [(p.token_ids, p.logprobs, p.ranks) for p in self.prompt_logprobs]
        return (tuple(self.token_ids), str(plain), str(prompt), self.finish_reason)


def settings(model: Path, **flat: Any) -> Settings:
    """Settings from flat names; every leaf takes the fields it has."""
    leaves: dict[str, Any] = {}
    flat = {"model": str(model), "use_tqdm_on_load": False, "threads": 1, **flat}
    for name, leaf in (
        ("model", ModelConfig),
        ("load", LoadConfig),
        ("cache", CacheConfig),
        ("scheduler", SchedulerConfig),
        ("parallel", ParallelConfig),
        ("supervision", SupervisionConfig),
        ("observability", ObservabilityConfig),
    ):
        own = {key: flat.pop(key) for key in list(flat) if key in leaf.__dataclass_fields__}
        leaves[name] = leaf(**own)
    assert not flat, f"no leaf has {sorted(flat)}"
    return Settings(**leaves)


@contextmanager
def engine(model: Path, *, own_process: bool = False, **flat: Any) -> Iterator[EngineClient]:
    """A started engine, shut down at the end."""
    flat.setdefault("kv_cache_memory_bytes", 64 << 20)
    client = make_client(settings(model, **flat), own_process=own_process)
    try:
        client.wait_ready(60.0)
        yield client
    finally:
        client.shutdown()


@dataclass
class Recorded:
    """How many steps of the engines made inside a block of `recorded_steps` replayed a list of calls."""

    num_replayed: int = 0


@contextmanager
def recorded_steps(wanted: bool = True) -> Iterator[Recorded]:
    """Engines made in this process inside the block record their steps, or run each one eagerly."""
    from quire.worker import worker
    from quire.worker.batch import Batch
    from quire.worker.graphs import Graphs, key_of

    count = Recorded()

    class Counted(Graphs):
        _num_recorded = 0

        def forward(self, batch: Batch) -> Any:
            if not wanted:
                return self._decoder.forward(batch.context)
            is_known, before = key_of(batch.context) in self._graphs, self._num_recorded
            hidden = super().forward(batch)
            count.num_replayed += is_known and before == self._num_recorded
            return hidden

        def _record(self, context: Any) -> Any:
            self._num_recorded += 1
            return super()._record(context)

    kept, worker.Graphs = worker.Graphs, Counted  # type: ignore[misc]
    try:
        yield count
    finally:
        worker.Graphs = kept  # type: ignore[misc]


def run(
    client: EngineClient,
    jobs: Sequence[Job],
    *,
    tag: str = "r",
    at_once: int | None = None,
    on_stats: Callable[[EngineStats], None] | None = None,
) -> list[list[Collected]]:
    """Runs all jobs, at most `at_once` at a time; the sequences of each job in order of their index."""
    found = [[Collected() for _ in range(job.params.get("n", 1))] for job in jobs]
    open_sequences = [len(sequences) for sequences in found]
    todo = list(range(len(jobs)))[::-1]
    live = 0
    while todo or live:
        while todo and (at_once is None or live < at_once):
            number = todo.pop()
            client.add(jobs[number].request(f"{tag}-{number}"))
            live += 1
        outputs = client.step()
        assert outputs is not None, "the engine says it is idle, but requests are open"
        if on_stats is not None:
            on_stats(outputs.stats)
        for update in outputs.updates:
            number = int(update.request_id.rpartition("-")[2])
            one = found[number][update.index]
            one.token_ids += update.token_ids
            one.logprobs += update.logprobs or []
            one.prompt_logprobs += update.prompt_logprobs or []
            one.num_cached_tokens = update.num_cached_tokens or one.num_cached_tokens
            if update.finish_reason is not None:
                one.finish_reason, one.error = update.finish_reason, update.error
                one.stop_reason = update.stop_reason
                open_sequences[number] -= 1
                live -= open_sequences[number] == 0
    return found


def bits(found: list[list[Collected]]) -> list[list[tuple[Any, ...]]]:
    return [[one.bits for one in sequences] for sequences in found]


def mixed_jobs(
    count: int,
    *,
    vocab_size: int,
    longest: int,
    max_tokens: int,
    shortest: int | None = None,
    seed: int = 0,
) -> list[Job]:
    """Prompts of many lengths, some sharing a prefix; half greedy, half seeded with filters and penalties.

    shortest  if given, lengths spread evenly over the octaves from here to `longest`; both ends occur.
    """
    rng = random.Random(seed)
    shared = tuple(rng.randrange(5, vocab_size) for _ in range(longest))
    jobs = []
    for number in range(count):
        length = rng.choice((rng.randint(1, 40), rng.randint(1, longest)))
        if shortest is not None:
            place = float(number) if number < 2 else rng.random()
            length = round(shortest * (longest / shortest) ** place)
        own = tuple(rng.randrange(5, vocab_size) for _ in range(length))
        prompt = shared[: rng.randint(1, length)] + own if number % 3 == 0 else own
        params: dict[str, Any] = {
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "logprobs": 3,
            "ignore_eos": True,
        }
        if number % 2:
            params |= {"temperature": 0.9, "top_p": 0.95, "n": 2 if number % 4 == 1 else 1}
        if number % 5 == 0:
            params |= {"repetition_penalty": 1.2, "frequency_penalty": 0.3, "min_p": 0.01}
        if number % 7 == 0:
            params["prompt_logprobs"] = 2
        jobs.append(Job(prompt[:longest], params, seed=1000 + number))
    return jobs


def with_params(job: Job, **changes: Any) -> Job:
    return replace(job, params={**job.params, **changes})
