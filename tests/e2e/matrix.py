"""The determinism matrix: the same requests under every setting that must not matter.

Driving an engine is `tests/e2e/driver.py`; how many requests, and of which models, is the caller's choice.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from quire.engine.client import EngineClient
from quire.ops.cpu.library import library
from tests.e2e.driver import Collected, Job, Recorded, engine, recorded_steps, run

_HEADS = {"hidden": 256, "num_attention_heads": 8, "head_dim": 64, "deviation": 0.1}
_WIDE = {"hidden_size": 256, "intermediate_size": 384, "head_dim": 64}
_EXPERTS = _WIDE | {"moe_intermediate_size": 128}
_NEMOTRON = _EXPERTS | {"moe_shared_expert_intermediate_size": 192}

MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "kv1": ("llama", _HEADS | {"kv_heads": 1}),
    "kv2": ("qwen3", _HEADS | {"kv_heads": 2}),
    "kv8": ("llama", _HEADS | {"kv_heads": 8}),
    "window": ("gemma2", _HEADS | {"kv_heads": 4, "window": 300}),
    "states": ("bamba", {"deviation": 0.1}),
    "deltas": ("qwen3_next", {"deviation": 0.1}),
    "short": ("lfm2", {"deviation": 0.1}),
    "linear": ("minimax", {"deviation": 0.1}),
    "shared": ("gemma4", {"global_head_dim": 32}),
    "olmo_hybrid": ("olmo_hybrid", _WIDE),
    "apertus": ("apertus", _WIDE),
    "afmoe": ("afmoe", _EXPERTS),
    "nemotron_h": ("nemotron_h_experts", _NEMOTRON),
    "nemotron_h_latent": ("nemotron_h_latent", _NEMOTRON | {"moe_latent_size": 128}),
    "rwkv": ("rwkv", {"hidden_size": 128, "num_hidden_layers": 2}),
    "recurrent_gemma": ("recurrent_gemma", {"hidden_size": 128, "lru_width": 128}),
}
"""Family and keywords of `tests.checkpoints.make`: two layers of 8 heads of 64, by what tells them apart; small
hybrids of attention and recurrent states: state spaces, delta nets, short convolutions, linear attention; layers
that share keys and values with heads of one size, as the cache that is short counts them; and by their names: delta
nets and attention whose norms stand elsewhere, xIELU, gated attention with experts, state spaces with experts, nothing
but states that know the token before, and gated recurrences beside windows."""

HYBRIDS = ("states", "deltas", "short", "linear", "olmo_hybrid", "nemotron_h", "nemotron_h_latent")
HYBRIDS += ("rwkv", "recurrent_gemma")

SETTINGS: dict[str, dict[str, Any]] = {name: {"mamba_block_size": 32} for name in HYBRIDS}
"""Settings of all ways for a model: states often enough that these prompts find some."""

FORMATS: dict[str, dict[str, Any]] = {
    "bfloat16": {"dtype": "bfloat16"},
    "float32": {"dtype": "float32"},
    "int8": {"dtype": "bfloat16", "quantization": "int8"},
    "int4": {"dtype": "bfloat16", "quantization": "int4"},
    "fp8": {"dtype": "bfloat16", "quantization": "fp8"},
}
"""Settings of a number type."""

BATCHES = (2, 7, 16, 17, 32, 33, 48)
BUDGETS = (16, 32, 64, 256, 2048, 4096)
_OFF = {"enable_prefix_caching": False}
_BASE = {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "block_size": 32, "threads": 1}


def tight_tokens(model: str, longest: int) -> int:
    """Tokens of a cache that is short for more than one sequence of `longest` tokens.

    Layers with a window hold blocks of their own beside those of full attention, and so do states.
    """
    quarters = {"window": 10, "states": 28, "deltas": 28, "short": 8, "linear": 12, "afmoe": 10}
    quarters |= {"olmo_hybrid": 18, "deepseek_v4": 42, "nemotron_h": 14, "nemotron_h_latent": 14}
    quarters |= {"rwkv": 2, "recurrent_gemma": 10}
    return longest * quarters.get(model, 5) // 4 + 32


@dataclass(frozen=True)
class Way:
    """One way to run the jobs; neighbours that differ in name and `at_once` only share an engine.

    settings  over the base: 64 sequences, 2,048 tokens a step, blocks of 32, one thread, cache on.
    at_once   requests in the engine at a time; None is all.
    order     seed of another order of arrival; None is theirs.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    at_once: int | None = None
    order: int | None = None
    is_recorded: bool = True
    in_own_process: bool = False

    @property
    def engine_key(self) -> tuple[Any, ...]:
        return (sorted(self.settings.items()), self.is_recorded, self.in_own_process)


def ways(*, tight_tokens: int, is_small: bool = False, restart: bool = True) -> list[Way]:
    """Every way, the reference first; `is_small` leaves out what straddles no further switch.

    tight_tokens  tokens in a cache that forces preemption; it must hold one longest sequence.
    restart       whether cells in a process of their own are among them; each takes seconds to start.
    """
    batches, budgets = (7, 17), (32,)
    if not is_small:
        batches, budgets = BATCHES, BUDGETS
    found = [
        Way("alone", _OFF, at_once=1),
        Way("all", _OFF),
        Way("shuffled", _OFF, order=1),
        *(Way(f"batch of {size}", _OFF | {"max_num_seqs": size}) for size in batches),
    ]
    for budget in budgets:
        found += _cold_and_warm(f"budget {budget}", max_num_batched_tokens=budget)
    for size in (8, 16):
        found += _cold_and_warm(f"blocks of {size}", block_size=size)
    found += _cold_and_warm("own budget", max_num_batched_tokens=None)
    found += _cold_and_warm("two tickets", async_scheduling=True)
    found += [Way("two threads, alone", _OFF | {"threads": 2}, at_once=1)] * (not is_small)
    found += [
        Way("two threads, all", _OFF | {"threads": 2}),
        Way("two threads, batch of 17", _OFF | {"threads": 2, "max_num_seqs": 17}),
        Way("two threads, budget 64", _OFF | {"threads": 2, "max_num_batched_tokens": 64}),
    ]
    found += _preempted(tight_tokens) + _eager(is_small)
    if restart:
        found.append(Way("restart", in_own_process=True))
    if restart and not is_small:
        found.append(Way("restart, two threads", {"threads": 2}, in_own_process=True))
    return found


def _cold_and_warm(name: str, **settings: Any) -> list[Way]:
    return [Way(f"{name}, cold", settings), Way(f"{name}, warm", settings, at_once=9)]


def _preempted(tokens: int) -> list[Way]:
    found = []
    for size, depth, caching, threads in (
        (16, 1, True, 1),
        (32, 1, False, 2),
        (8, 2, False, 1),
        (32, 2, True, 2),
    ):
        settings = {
            "block_size": size,
            "num_gpu_blocks_override": tokens // size,
            "async_scheduling": depth == 2,
            "enable_prefix_caching": caching,
            "threads": threads,
            "max_num_batched_tokens": 256,
        }
        name = f"preempted, blocks of {size}, cache {'on' if caching else 'off'}"
        name += ", two tickets" * (depth == 2) + ", two threads" * (threads == 2)
        found.append(Way(name, settings))
    return found


def _eager(is_small: bool) -> list[Way]:
    found = [
        Way("eager, all", _OFF),
        Way("eager, two threads, budget 32", {"threads": 2, "max_num_batched_tokens": 32}),
        Way("eager, batch of 17", _OFF | {"max_num_seqs": 17}),
    ]
    found += [Way("eager, alone", _OFF, at_once=1)] * (not is_small)
    return [replace(way, is_recorded=False) for way in found]


@dataclass(frozen=True)
class Cell:
    """What one way of running the jobs changed, against the first.

    num_different  sequences that differ in anything, of `num_sequences`.
    num_tokens     tokens that differ; a missing one counts.
    num_logprobs   log-probabilities, of answers and prompts, that differ in any bit or in their token.
    num_replayed   steps that were a recorded list of calls; None in a process of its own.
    example        the first difference in words.
    """

    way: Way
    num_different: int
    num_sequences: int
    num_tokens: int
    num_logprobs: int
    num_preemptions: int
    num_cached_tokens: int
    num_replayed: int | None
    example: str

    @property
    def name(self) -> str:
        return self.way.name

    @property
    def weakness(self) -> str:
        """Why the cell proves nothing of what its name says, or an empty string."""
        if self.name.startswith("preempted") and self.num_preemptions < self.num_sequences // 8:
            return "too few preemptions"
        if self.name.endswith("warm") and not self.num_cached_tokens:
            return "nothing was found in the cache"
        if library() is None or self.num_replayed is None:
            return ""
        if self.way.is_recorded != bool(self.num_replayed):
            return "no step was replayed" if self.way.is_recorded else "steps were replayed"
        return ""


def matrix(
    folder: Path, jobs: Sequence[Job], plan: Sequence[Way], *, longest: int, **numbers: Any
) -> Iterator[Cell]:
    """Runs `jobs` in each way of `plan` and compares ids and log-probabilities with the first, bit for bit.

    numbers  settings of all ways: the number type.
    """
    base = _BASE | {"max_model_len": longest, "kv_cache_memory_bytes": 512 << 20} | numbers
    reference: list[Collected] = []
    for _, group in groupby(plan, lambda way: way.engine_key):
        shared = list(group)
        first, settings = shared[0], base | shared[0].settings
        with (
            recorded_steps(first.is_recorded) as recorded,
            engine(folder, own_process=first.in_own_process, **settings) as client,
        ):
            before = 0
            for number, way in enumerate(shared):
                replayed = recorded.num_replayed
                found, preemptions = _sequences(client, jobs, way, tag=f"w{number}")
                reference = reference or found
                yield _cell(
                    way,
                    reference,
                    found,
                    num_preemptions=preemptions - before,
                    num_replayed=_since(replayed, recorded, way),
                )
                before = preemptions


def _since(before: int, recorded: Recorded, way: Way) -> int | None:
    return None if way.in_own_process else recorded.num_replayed - before


def _sequences(
    client: EngineClient, jobs: Sequence[Job], way: Way, *, tag: str
) -> tuple[list[Collected], int]:
    """Every sequence in the order of the jobs, and the engine's preemptions since its start."""
    order = list(range(len(jobs)))
    if way.order is not None:
        random.Random(way.order).shuffle(order)
    counts = [0]
    found = run(
        client,
        [jobs[number] for number in order],
        tag=tag,
        at_once=way.at_once,
        on_stats=lambda stats: counts.append(stats.num_preemptions),
    )
    by_job = dict(zip(order, found, strict=True))
    flat = [one for number in range(len(jobs)) for one in by_job[number]]
    errors = [one.error for one in flat if one.error]
    assert not errors, f"{way.name}: {errors[0]}"
    return flat, max(counts)


def _cell(way: Way, reference: list[Collected], found: list[Collected], **counts: Any) -> Cell:
    tokens = logprobs = different = 0
    example = ""
    for number, (one, other) in enumerate(zip(reference, found, strict=True)):
        if one.bits == other.bits:
            continue
        different += 1
        tokens += _num_unequal(one.token_ids, other.token_ids)
        pairs = [(_entries(one, name), _entries(other, name)) for name in _LOGPROBS]
        logprobs += sum(_num_unequal(a, b) for a, b in pairs)
        example = example or f"sequence {number}, {_first_difference(one, other)}"
    return Cell(
        way=way,
        num_different=different,
        num_sequences=len(found),
        num_tokens=tokens,
        num_logprobs=logprobs,
        num_cached_tokens=sum(one.num_cached_tokens for one in found),
        example=example,
        **counts,
    )


_LOGPROBS = ("prompt_logprobs", "logprobs")


def _entries(one: Collected, name: str) -> list[tuple[int, int, bytes]]:
    """(position, token, bits) of every log-probability of the answer or of the prompt."""
    return [
        (position, token, struct.pack("<d", value))
        for position, at in enumerate(getattr(one, name))
        for token, value in zip(at.token_ids, at.logprobs, strict=True)
    ]


def _num_unequal(one: Iterable[Any], other: Iterable[Any]) -> int:
    return sum(a != b for a, b in zip_longest(one, other))


def _first_difference(one: Collected, other: Collected) -> str:
    for name in _LOGPROBS:
        for position, (a, b) in enumerate(zip_longest(getattr(one, name), getattr(other, name))):
            if str(a) != str(b):
                return f"{name} at {position}: {a} and {b}"
    return f"{one.finish_reason} after {one.token_ids} and {other.finish_reason} after {other.token_ids}"
