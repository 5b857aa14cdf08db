"""The first steps of an engine, which nobody asked for: they touch the weights, and tell its rate.

Admission in the front starts from that rate; see `server.admission`.
"""

from __future__ import annotations

from quire.protocol.cache import CacheLayout
from quire.protocol.params import SamplingParams
from quire.protocol.request import EncoderInput
from quire.protocol.step import NewRow, StepPlan
from quire.worker.executor import Executor, StepFailedError

_TOKENS = 256
_FIRST_TOKENS = 16
_SECOND_S = (
    0.05  # what a second step may take by the first: a start waits no longer for a better rate
)


def measured_rate(executor: Executor, layout: CacheLayout, max_tokens: int) -> float:
    """Prompt tokens a second of a step of fewer than `max_tokens`; 0 if it fails. For a model so large that one
    short step takes long it is what that step says: too low by up to a half.

    The cache is written to, and no block's key is told, so that nobody can find what is in it.
    """
    rooms = [layout.max_blocks(g) * one.block_size for g, one in enumerate(layout.groups)]
    rooms += [one.max_tokens for one in layout.groups if one.kind == "cross"]
    max_tokens = min(max_tokens, *rooms) - 1
    try:
        count = min(_FIRST_TOKENS, max_tokens)
        seconds = _run(executor, layout, count)
        longer = min(_TOKENS, max_tokens, int(count * _SECOND_S / max(seconds, 1e-6)))
        if longer > 2 * count:  # fewer would not tell more
            count = longer
            seconds = _run(executor, layout, count)
    except StepFailedError:
        return 0.0
    return count / seconds if seconds > 0 else 0.0


def _run(executor: Executor, layout: CacheLayout, count: int) -> float:
    """Seconds of a step of one row, which is free again afterwards."""
    encodes = any(group.kind == "cross" for group in layout.groups)
    new = NewRow(
        row=0,
        request_id="",
        index=0,
        token_ids=[0] * count,
        num_prompt_tokens=count,
        params=SamplingParams(temperature=0.0, max_tokens=1),
        seed=0,
        block_ids=[list(range(count // group.block_size + 1)) for group in layout.groups],
        encoder=EncoderInput(token_ids=[0] * count) if encodes else None,
    )
    plan = StepPlan(
        step=0,
        new_rows=[new],
        rows=[0],
        starts=[0],
        counts=[count],
        samples=[True],
        encodes={0: count} if encodes else {},
    )
    result = executor.collect(executor.submit(plan))
    executor.collect(executor.submit(StepPlan(step=0, freed_rows=[0])))
    return result.elapsed_s
