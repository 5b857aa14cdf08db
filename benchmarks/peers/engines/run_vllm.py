"""vLLM's build for CPUs: the offline engine in this process, turned step by step.

The caller preloads the OpenMP library of vLLM's environment and sets the size of its cache; over HTTP vLLM's
own server is used instead.
"""

from __future__ import annotations

import os
import time

from peer_session import Answer, Request, Setup, main


class Vllm:
    """Options: eager (no compilation), max_batched_tokens."""

    name = "vllm"

    def __init__(self, setup: Setup) -> None:
        if setup.number_format != "bf16":
            raise SystemExit(f"vllm runs bf16 here, not {setup.number_format}")
        import vllm

        settings = {"enforce_eager": setup.is_on("eager"), "distributed_executor_backend": "uni"}
        if setup.option("max_batched_tokens", ""):
            settings["max_num_batched_tokens"] = int(setup.option("max_batched_tokens", ""))
        self.version = vllm.__version__
        self.settings = settings
        self._params = vllm.SamplingParams
        self._engine = vllm.LLM(
            model=setup.model,
            dtype="bfloat16",
            max_model_len=max(4096, setup.max_len),
            max_num_seqs=setup.max_seqs,
            enable_prefix_caching=True,
            seed=0,
            **settings,
        ).llm_engine
        self._num_started = 0

    def generate(self, requests: list[Request]) -> list[Answer]:
        """All at once; times are those of the step that brought a token."""
        answers: dict[str, Answer] = {}
        for one in requests:
            request_id = str(self._num_started)
            self._num_started += 1
            params = self._params(
                temperature=0,
                max_tokens=one.num_output,
                min_tokens=one.num_output,
                ignore_eos=True,
                detokenize=False,
            )
            self._engine.add_request(request_id, {"prompt_token_ids": one.prompt}, params)
            answers[request_id] = Answer()
        while self._engine.has_unfinished_requests():
            outputs = self._engine.step()
            now = time.perf_counter()
            for output in outputs:
                answer = answers[output.request_id]
                known = len(answer.token_ids)
                answer.add(list(output.outputs[0].token_ids)[known:], now)
        return list(answers.values())


if __name__ == "__main__":
    # one process: engine, scheduler and arithmetic in this one; chosen by vLLM when it is imported
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    main(Vllm)
