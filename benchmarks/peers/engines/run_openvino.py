"""OpenVINO GenAI: its pipeline with continuous batching, turned step by step.

The model was exported by optimum, its weights in the format that is asked.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import openvino
import openvino_genai
from peer_session import Answer, Request, Setup, main

CACHE_GB = 6
BATCHED_TOKENS = 2048
"""Tokens of one step: 861 tokens/s in a prompt of 2048 where the default of 256 gave 697."""


class OpenVino:
    """Options: batched_tokens, cache_gb, kv (precision of the cache), first_alone.

    first_alone  the first request runs to its end before the others start: the pipeline shares the blocks of
                 a prefix only when they are computed.
    """

    name = "openvino"

    def __init__(self, setup: Setup) -> None:
        self.version = f"genai {openvino_genai.__version__}, openvino {openvino.__version__}"
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.cache_size = int(setup.option("cache_gb", str(CACHE_GB)))
        scheduler.max_num_seqs = setup.max_seqs
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = True
        scheduler.max_num_batched_tokens = int(setup.option("batched_tokens", str(BATCHED_TOKENS)))
        device: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": setup.num_threads,
        }
        if setup.option("kv", ""):
            device["KV_CACHE_PRECISION"] = setup.option("kv", "")
        self._first_alone = setup.is_on("first_alone")
        self._pipeline = openvino_genai.ContinuousBatchingPipeline(
            setup.model, scheduler, "CPU", device
        )
        self._num_started = 0
        self.settings = {
            **device,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "first_alone": self._first_alone,
            "cache": setup.option("kv", "engine's default"),
        }

    def generate(self, requests: list[Request]) -> list[Answer]:
        """All at once, or the first before the others."""
        if self._first_alone:
            return self._run(requests[:1]) + self._run(requests[1:])
        return self._run(requests)

    def _run(self, requests: list[Request]) -> list[Answer]:
        handles = [self._start(one) for one in requests]
        answers = [Answer() for _ in requests]
        while self._pipeline.has_non_finished_requests():
            self._pipeline.step()
            now = time.perf_counter()
            for handle, answer in zip(handles, answers, strict=True):
                while handle.can_read():
                    for output in handle.read().values():
                        answer.add(list(output.generated_ids), now)
        return answers

    def _start(self, request: Request) -> Any:
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = config.min_new_tokens = request.num_output
        config.ignore_eos = True
        config.do_sample = False
        self._num_started += 1
        prompt = openvino.Tensor(np.array([request.prompt], dtype=np.int64))
        return self._pipeline.add_request(self._num_started, prompt, config)


if __name__ == "__main__":
    main(OpenVino)
