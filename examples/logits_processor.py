"""Changes logits with code of one's own: `python examples/logits_processor.py [folder or hub name]`.

A server loads the same class with `quire serve --logits-processors examples.logits_processor:NoRepeats`, and a
request asks for it with `"vllm_xargs": {"no_repeats": 1}`.
"""

from __future__ import annotations

import sys

import torch

from quire import LLM, SamplingParams
from quire.protocol.logits_processors import AdapterLogitsProcessor, RequestLogitsProcessor


class NoRepeats(AdapterLogitsProcessor):
    """For requests that ask for it, no token is chosen twice."""

    @classmethod
    def validate_params(cls, sampling_params: SamplingParams) -> None:
        """Refuses a request whose argument is no number."""
        wanted = (sampling_params.extra_args or {}).get("no_repeats", 0)
        if not isinstance(wanted, int):
            raise ValueError(f"no_repeats is {wanted!r}; it must be 0 or 1")

    def is_argmax_invariant(self) -> bool:
        """The best token may be banned."""
        return False

    def new_req_logits_processor(self, params: SamplingParams) -> RequestLogitsProcessor | None:
        """The function for one request; most have none."""
        return ban_seen if (params.extra_args or {}).get("no_repeats") else None


def ban_seen(output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
    """Logits [V] without what the output has already."""
    logits[output_ids] = float("-inf")
    return logits


def main(model: str) -> None:
    """Prints an answer with repeats and one without."""
    with LLM(model, max_model_len=1024, logits_processors=[NoRepeats]) as llm:
        for extra in (None, {"no_repeats": 1}):
            params = SamplingParams(
                temperature=0.0, max_tokens=24, ignore_eos=True, extra_args=extra
            )
            ids = llm.generate("Hello", params, use_tqdm=False)[0].outputs[0].token_ids
            print(f"{len(set(ids))} of {len(ids)} tokens differ")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
