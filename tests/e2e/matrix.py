"""The determinism matrix: the same requests under every setting that must not matter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.engine.client import EngineClient
from tests.e2e.driver import Job, bits, engine, run


@dataclass(frozen=True)
class Cell:
    """One way to run the jobs and how many sequences it changed, of how many."""

    name: str
    num_different: int
    num_sequences: int
    num_preemptions: int
    num_cached_tokens: int


def matrix(
    folder: Path,
    jobs: list[Job],
    *,
    dtype: str,
    tight_blocks: int,
    longest: int,
    max_num_seqs: int = 64,
) -> Iterator[Cell]:
    """Runs `jobs` alone, then in every other way, and compares ids and logprob bits.

    tight_blocks  blocks of 8 tokens in the first cache group that force preemption.
    """
    base: dict[str, Any] = {"dtype": dtype, "max_model_len": longest, "max_num_seqs": max_num_seqs}
    reference: list[Any] = []

    def cell(name: str, client: EngineClient, **how: Any) -> Cell:
        found = run(client, jobs, tag=name.replace("-", "_"), **how)
        errors = [one.error for sequences in found for one in sequences if one.error]
        assert not errors, f"{name}: {errors[0]}"
        got = [one for sequences in bits(found) for one in sequences]
        if not reference:
            reference.extend(got)
        return Cell(
            name=name,
            num_different=sum(a != b for a, b in zip(reference, got, strict=True)),
            num_sequences=len(got),
            num_preemptions=_preemptions(client, jobs[0]),
            num_cached_tokens=sum(
                one.num_cached_tokens for sequences in found for one in sequences
            ),
        )

    with engine(folder, **base, enable_prefix_caching=False) as client:
        yield cell("alone, cache off", client, at_once=1)
        yield cell("batch, cache off", client)
    for block_size in (16, 32):
        for depth in (1, 2):
            for budget in (16, 4096):
                flat = {**base, "block_size": block_size, "max_num_batched_tokens": budget}
                with engine(folder, **flat, async_scheduling=depth == 2) as client:
                    where = f"blocks of {block_size}, budget {budget}, depth {depth}"
                    yield cell(f"{where}, cold", client)
                    yield cell(f"{where}, warm", client, at_once=9)
    tight = {"block_size": 8, "num_gpu_blocks_override": tight_blocks}
    for depth in (1, 2):
        for caching in (True, False):
            flat = {**base, **tight, "enable_prefix_caching": caching}
            with engine(folder, **flat, async_scheduling=depth == 2) as client:
                yield cell(f"preempted, depth {depth}, caching {caching}", client)


def _preemptions(client: EngineClient, job: Job) -> int:
    """How often the engine preempted so far, read from the news of one more request."""
    client.add(job.request("probe-0"))
    count = 0
    while (outputs := client.step()) is not None:
        count = outputs.stats.num_preemptions
    return count
