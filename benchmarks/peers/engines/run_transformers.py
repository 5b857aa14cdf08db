"""Transformers: `generate` over one left-padded batch.

Its continuous batching runs on a CPU too and was slower in B1 to B3, so it is not used here.
"""

from __future__ import annotations

import time
from typing import Any

import torch
import transformers
from peer_session import Answer, Request, Setup, main


class StepClock(transformers.StoppingCriteria):
    """Notes when each step of a batch is done, and ends rows at their own length."""

    def __init__(self, lengths: list[int]) -> None:
        self.clocks_s: list[float] = []
        self._lengths = torch.tensor(lengths)

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        self.clocks_s.append(time.perf_counter())
        return self._lengths <= len(self.clocks_s)


class Transformers:
    """A checkpoint in bfloat16 with `torch.nn.functional.scaled_dot_product_attention`."""

    name = "transformers"

    def __init__(self, setup: Setup) -> None:
        if setup.number_format != "bf16":
            raise SystemExit(f"transformers runs bf16 here, not {setup.number_format}")
        torch.set_num_threads(setup.num_threads)
        self.version = f"{transformers.__version__}, torch {torch.__version__}"
        self.settings = {"attention": "sdpa", "batching": "static, padded"}
        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            setup.model, dtype=torch.bfloat16, attn_implementation="sdpa"
        ).eval()

    @torch.inference_mode()
    def generate(self, requests: list[Request]) -> list[Answer]:
        """All requests as one batch, padded to the longest prompt."""
        width = max(len(one.prompt) for one in requests)
        clock = StepClock([one.num_output for one in requests])
        ids = torch.tensor([[0] * (width - len(one.prompt)) + one.prompt for one in requests])
        mask = torch.tensor(
            [[0] * (width - len(one.prompt)) + [1] * len(one.prompt) for one in requests]
        )
        made = self._model.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=max(one.num_output for one in requests),
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            stopping_criteria=transformers.StoppingCriteriaList([clock]),
        )[:, width:].tolist()
        return [
            Answer(row[: one.num_output], clock.clocks_s[: one.num_output])
            for row, one in zip(made, requests, strict=True)
        ]


if __name__ == "__main__":
    main(Transformers)
