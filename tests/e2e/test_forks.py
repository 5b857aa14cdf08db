"""Equal prompts are computed once: n sequences of one request, and requests that arrive together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.driver import Job, bits, engine, run, with_params

PROMPT = tuple(5 + (7 * i) % 400 for i in range(1000))
JOB = Job(PROMPT, {"max_tokens": 2, "temperature": 1.0, "logprobs": 1, "ignore_eos": True}, seed=7)


def _computed(client) -> int:
    client.add(Job((5,), {"max_tokens": 1}, seed=0).request("probe-0"))
    while (outputs := client.step()) is not None:
        stats = outputs.stats
    return stats.prompt_tokens_computed - 1


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("caching", [True, False])
def test_n_of_eight_costs_little_more_than_one(
    checkpoint: Callable[..., Path], family: str, caching: bool
) -> None:
    with engine(checkpoint(family), enable_prefix_caching=caching, max_model_len=1100) as client:
        together = run(client, [with_params(JOB, n=8)])[0]
        assert _computed(client) < 1.1 * len(PROMPT)
        assert len({one.bits for one in together}) > 1
        first = run(client, [JOB], tag="single")[0][0]
        assert first.bits == together[0].bits


def test_eight_equal_prompts_at_once_are_computed_once(checkpoint: Callable[..., Path]) -> None:
    for budget in (4096, 256):
        with engine(
            checkpoint("llama"), max_num_batched_tokens=budget, max_model_len=1100
        ) as client:
            found = run(client, [JOB] * 8)
            assert _computed(client) < 1.1 * len(PROMPT)
            assert len({str(one) for one in bits(found)}) == 1
