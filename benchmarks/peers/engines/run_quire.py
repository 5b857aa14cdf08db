"""Quire: its engine as a loop in this process, turned step by step.

Every setting that a user leaves open is left open, but for what the other engines are given too.
"""

from __future__ import annotations

import time
from typing import Any

from peer_session import Answer, Request, Setup, main

import quire
from quire import EngineArgs, LLMEngine, SamplingParams
from quire.protocol.params import RequestOutputKind

CACHE_GIB = 4


class Quire:
    """Options are settings of `quire.EngineArgs` by name, their values words."""

    name = "quire"

    def __init__(self, setup: Setup) -> None:
        settings: dict[str, Any] = {
            "dtype": "bfloat16",
            "threads": setup.num_threads,
            "max_num_seqs": setup.max_seqs,
            "max_model_len": max(4096, setup.max_len),
            "kv_cache_memory_bytes": CACHE_GIB << 30,
            **setup.options,
        }
        if setup.number_format != "bf16" and not setup.model.endswith(".gguf"):
            scheme, _, inputs = setup.number_format.partition("_a")
            settings["quantization"] = scheme
            if inputs:
                settings["activation_bits"] = int(inputs)
        self.version = quire.__version__
        self.settings = settings
        self._engine = LLMEngine.from_engine_args(EngineArgs(setup.model, **settings))
        self._num_started = 0

    def generate(self, requests: list[Request]) -> list[Answer]:
        """All at once; times are those of the step that brought a token."""
        answers: dict[str, Answer] = {}
        for one in requests:
            request_id = str(self._num_started)
            self._num_started += 1
            params = SamplingParams(
                temperature=0.0,
                max_tokens=one.num_output,
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            )
            self._engine.add_request(request_id, {"prompt_token_ids": one.prompt}, params)
            answers[request_id] = Answer()
        while self._engine.has_unfinished_requests():
            outputs = self._engine.step()
            now = time.perf_counter()
            for output in outputs:
                if output.error is not None:
                    raise RuntimeError(f"request {output.request_id}: {output.error}")
                answers[output.request_id].add(list(output.outputs[0].token_ids), now)
        return list(answers.values())


if __name__ == "__main__":
    main(Quire)
