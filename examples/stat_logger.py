"""Counts tokens with a stat logger of one's own: `python examples/stat_logger.py [folder or hub name]`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from quire import AsyncEngineArgs, AsyncLLM, SamplingParams
from quire.metrics.stat_loggers import IterationStats, SchedulerStats, StatLoggerBase


class TokenCounter(StatLoggerBase):
    """Adds up what each step has made."""

    total = 0

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.model = vllm_config.model_config.model

    def log_engine_initialized(self) -> None:
        """Nothing to say."""

    def record(
        self,
        scheduler_stats: SchedulerStats | None,
        iteration_stats: IterationStats | None,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """Takes one step into account."""
        if iteration_stats is not None:
            TokenCounter.total += iteration_stats.num_generation_tokens


async def ask(engine: AsyncLLM) -> int:
    """Tokens of one answer."""
    params = SamplingParams(max_tokens=16, ignore_eos=True)
    count = 0
    async for output in engine.generate("Hello", params, request_id="one"):
        count = len(output.outputs[0].token_ids)
    return count


def main(model: str) -> None:
    """Prints the tokens of an answer, and those that the logger has seen."""
    args = AsyncEngineArgs(model, max_model_len=1024)
    engine = AsyncLLM.from_engine_args(args, stat_loggers=[TokenCounter])
    try:
        print(f"{asyncio.run(ask(engine))} tokens, {TokenCounter.total} seen by the logger")
    finally:
        engine.shutdown()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
