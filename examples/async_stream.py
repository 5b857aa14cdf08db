"""Streams several answers at the same time: `python examples/async_stream.py <folder of a checkpoint>`."""

from __future__ import annotations

import asyncio
import sys

from quire import AsyncEngineArgs, AsyncLLM, SamplingParams
from quire.protocol.params import RequestOutputKind

PROMPTS = ["The river runs", "Snow fell on the mountain", "The clock stopped"]


async def stream(engine: AsyncLLM, number: int, prompt: str) -> None:
    """Prints each piece of one answer as it comes."""
    params = SamplingParams(
        temperature=0.8, seed=number, max_tokens=24, output_kind=RequestOutputKind.DELTA
    )
    async for output in engine.generate(prompt, params, request_id=f"stream-{number}"):
        print(f"{number}: {output.outputs[0].text!r}")


async def serve(engine: AsyncLLM) -> None:
    """All prompts at once, in one batch."""
    await asyncio.gather(*(stream(engine, number, prompt) for number, prompt in enumerate(PROMPTS)))


def main(model: str) -> None:
    """Starts an engine in its own process and streams from it."""
    engine = AsyncLLM.from_engine_args(AsyncEngineArgs(model=model))
    try:
        asyncio.run(serve(engine))
    finally:
        engine.shutdown()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
