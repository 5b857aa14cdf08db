"""What the engines are asked: the requests of each workload, as token ids and exact lengths.

Lengths depend on the workload alone; ids also on the pass, so that no prefix cache of an earlier pass
helps. How an answer is timed is `engines/peer_session`'s and `http_load`'s business.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

LOWEST_ID = 200
HIGHEST_ID = 14_999
"""Prompts hold ids within these: inside the vocabulary of every checkpoint, beyond its special tokens."""

WARMUP_OUTPUT = 32
"""Tokens of each warm-up answer: enough to meet every shape of weights and batch once."""


@dataclass(frozen=True)
class Request:
    """A prompt of token ids, and the exact number of tokens to make."""

    prompt: list[int]
    num_output: int


@dataclass(frozen=True)
class Workload:
    """A set of requests that arrive together.

    lengths     prompt and output length of each request.
    shared_len  tokens at the beginning that all prompts of one pass have in common.
    num_clients where not 0, requests go over HTTP, each client sending its next when one is answered.
    """

    title: str
    lengths: tuple[tuple[int, int], ...]
    shared_len: int = 0
    num_clients: int = 0


def _mixed_lengths() -> tuple[tuple[int, int], ...]:
    draw = random.Random("lengths-B4")
    return tuple((draw.randint(16, 512), draw.randint(16, 256)) for _ in range(64))


WORKLOADS = {
    "B1": Workload("single stream, 128 in, 128 out", ((128, 128),)),
    "B2": Workload("one prompt of 2048", ((2048, 1),)),
    "B3": Workload("32 requests, 128 in, 128 out", ((128, 128),) * 32),
    "B16": Workload("16 requests, 128 in, 128 out", ((128, 128),) * 16),
    "B4": Workload("64 requests of mixed lengths", _mixed_lengths()),
    "B5": Workload("32 requests sharing 1024 tokens, 32 own, 32 out", ((1056, 32),) * 32, 1024),
    "B6": Workload("HTTP, 8 clients, 32 requests, 128 in, 64 out", ((128, 64),) * 32, 0, 8),
}


def requests_of(name: str, number: int | str) -> list[Request]:
    """The requests of pass `number` of a workload. Raises KeyError for an unknown name."""
    workload = WORKLOADS[name]
    draw = random.Random(f"ids-{name}-{number}")

    def ids(count: int) -> list[int]:
        return [draw.randint(LOWEST_ID, HIGHEST_ID) for _ in range(count)]

    shared = ids(workload.shared_len)
    return [
        Request(shared + ids(num_prompt - workload.shared_len), num_output)
        for num_prompt, num_output in workload.lengths
    ]


def warmup_of(name: str) -> list[Request]:
    """The same lengths with other ids, the answers cut short."""
    return [
        Request(one.prompt, min(one.num_output, WARMUP_OUTPUT))
        for one in requests_of(name, "warmup")
    ]


def write_requests(path: Path, name: str, num_passes: int) -> None:
    """Writes the file that the scripts of `engines/` read: the warm-up, then each pass."""

    def plain(requests: Sequence[Request]) -> list[dict[str, object]]:
        return [asdict(one) for one in requests]

    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "workload": name,
        "warmup": plain(warmup_of(name)),
        "passes": [plain(requests_of(name, number)) for number in range(num_passes)],
    }
    path.write_text(json.dumps(content))
