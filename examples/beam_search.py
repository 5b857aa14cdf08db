"""The likeliest continuations of a prompt: `python examples/beam_search.py [folder or hub name]`."""

from __future__ import annotations

import sys

from quire import LLM
from quire.protocol.params import BeamSearchParams


def main(model: str) -> None:
    """Prints three continuations with the logarithm of their probability, best first."""
    with LLM(model, max_model_len=1024) as llm:
        params = BeamSearchParams(beam_width=3, max_tokens=8)
        for sequence in llm.beam_search(["The capital of France is"], params)[0].sequences:
            print(f"{sequence.cum_logprob:8.3f}  {sequence.text!r}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
