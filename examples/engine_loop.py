"""Turns the engine by hand, with requests that join later: `python examples/engine_loop.py [folder or hub name]`."""

from __future__ import annotations

import sys

from quire import EngineArgs, LLMEngine, SamplingParams

PROMPTS = ["The capital of France is", "Hello", "Two and two are"]


def main(model: str) -> None:
    """Adds one request before each step, and prints each answer as it is finished."""
    engine = LLMEngine.from_engine_args(EngineArgs(model, max_model_len=1024))
    waiting = list(enumerate(PROMPTS))
    while waiting or engine.has_unfinished_requests():
        if waiting:
            number, prompt = waiting.pop(0)
            engine.add_request(str(number), prompt, SamplingParams(temperature=0.0, max_tokens=8))
        for output in engine.step():
            if output.finished:
                print(f"{output.request_id}: {output.prompt!r} -> {output.outputs[0].text!r}")
    engine.shutdown()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
