"""A prompt of 20,000 tokens beside eight streams: every stream goes on, and the metrics add up.

How long a gap takes on a clock is measured by `benchmarks/long_prompt.py`, not asserted here.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quire import SamplingParams
from quire.config.args import EngineArgs
from quire.llm_engine import LLMEngine
from quire.metrics.reader import Counter, read_metrics
from quire.protocol.params import RequestOutputKind

LONG = 20_000
SHORT = 50
NUM_STREAMS = 8
LEAST_TOKENS = 9  # the budget of a step is at most 2,048 tokens, so the long prompt takes ten steps


@pytest.fixture
def engine(checkpoint: Callable[..., Path]) -> Iterator[LLMEngine]:
    """A llama of two layers with room for the long prompt, and with the step budget left open."""
    args = EngineArgs(
        str(checkpoint("llama", max_len=32_768)),
        max_model_len=32_768,
        kv_cache_memory_bytes=256 << 20,
        threads=1,
        use_tqdm_on_load=False,
        disable_log_stats=False,
    )
    made = LLMEngine.from_engine_args(args)
    yield made
    made.shutdown()


def totals(engine: LLMEngine) -> dict[str, int]:
    """Counters by name, summed over their labels."""
    found: dict[str, int] = defaultdict(float)
    assert engine._stats is not None
    for metric in read_metrics(engine._stats.metrics.registry, prefix=""):
        if isinstance(metric, Counter):
            found[metric.name] += metric.value
    return found


def params(max_tokens: int) -> SamplingParams:
    """Greedy, never ended by EOS, told in pieces."""
    return SamplingParams(
        max_tokens=max_tokens,
        temperature=0.0,
        ignore_eos=True,
        output_kind=RequestOutputKind.DELTA,
    )


@pytest.mark.slow  # 7 s on an idle core, a minute where cores are shared
def test_streams_go_on_while_a_long_prompt_is_computed(engine: LLMEngine) -> None:
    assert engine.client.info.max_num_batched_tokens <= 2048
    rng = random.Random(0)
    prompts = [[rng.randrange(5, 400) for _ in range(SHORT)] for _ in range(NUM_STREAMS)]
    streams = [
        engine.add_request(f"stream-{number}", {"prompt_token_ids": prompt}, params(8000))
        for number, prompt in enumerate(prompts)
    ]
    given: dict[str, int] = defaultdict(int)
    while len(given) < NUM_STREAMS:
        for name, output in engine.step_with_ids():
            given[name] += len(output.outputs[0].token_ids)
    before = dict(given)

    prompt = [rng.randrange(5, 400) for _ in range(LONG)]
    long = engine.add_request("long", {"prompt_token_ids": prompt}, params(2))
    silent = dict.fromkeys(streams, 0)  # steps since the last token of each
    longest_silence = 0
    while not given[long]:
        silent = {name: steps + 1 for name, steps in silent.items()}
        for name, output in engine.step_with_ids():
            given[name] += len(output.outputs[0].token_ids)
            silent[name] = 0
        longest_silence = max(longest_silence, *(silent[name] for name in streams))
    during = {name: given[name] - before[name] for name in streams}
    assert min(during.values()) >= LEAST_TOKENS, during
    assert longest_silence <= 1, f"{longest_silence} steps without a token of some stream"

    engine.abort_request(streams, internal=True)
    while engine.has_unfinished_requests():
        for name, output in engine.step_with_ids():
            given[name] += len(output.outputs[0].token_ids)
    now = totals(engine)
    assert given[long] == 2
    assert now["vllm:prompt_tokens"] == NUM_STREAMS * SHORT + LONG
    assert now["vllm:generation_tokens"] == sum(given.values())
    assert now["quire:requests_accepted"] == NUM_STREAMS + 1
    ends = [now[f"quire:requests_{how}"] for how in ("finished", "aborted", "failed")]
    assert ends == [1, NUM_STREAMS, 0]
