"""A model run from its description against the same model run from Transformers' code, turn and turn about.

    python -m benchmarks.foreign MODEL [--batch 1 16] [--rounds 5] [--tokens 32] [--dtype bfloat16]

Both engines live in one process and take turns, so that a busy machine slows both. A line for each batch
size: output tokens a second of both (medians of the rounds) and the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time

from quire import LLM, SamplingParams


def main() -> None:
    """Runs and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a folder whose architecture has a description")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=32, help="output tokens of each sequence")
    parser.add_argument("--prompt", type=int, default=32, help="prompt tokens of each sequence")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--quantization", default=None)
    parser.add_argument("--load-format", default="auto")
    given = parser.parse_args()
    engines = {
        impl: LLM(
            model=given.model,
            model_impl=impl,
            skip_tokenizer_init=True,
            dtype=given.dtype,
            quantization=given.quantization,
            load_format=given.load_format,
            max_model_len=1024,
            max_num_seqs=max(given.batch),
            enable_prefix_caching=False,
            kv_cache_memory_bytes=256 << 20,
        )
        for impl in ("quire", "transformers")
    }
    for batch in given.batch:
        rates: dict[str, list[float]] = {impl: [] for impl in engines}
        for number in range(given.rounds + 1):
            for impl, llm in engines.items():
                rate = _rate(llm, batch, given.prompt, given.tokens, seed=number)
                if number:  # the first round warms up
                    rates[impl].append(rate)
        ratios = [b / a for a, b in zip(rates["quire"], rates["transformers"], strict=True)]
        print(
            f"batch {batch}: described {statistics.median(rates['quire']):.2f} tok/s, "
            f"Transformers' code {statistics.median(rates['transformers']):.2f} tok/s, "
            f"ratio {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )


def _rate(llm: LLM, batch: int, prompt: int, tokens: int, *, seed: int) -> float:
    """Output tokens a second."""
    draw = random.Random(seed)
    prompts = [
        {"prompt_token_ids": [draw.randrange(100, 200) for _ in range(prompt)]}
        for _ in range(batch)
    ]
    params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
    started = time.perf_counter()
    llm.generate(prompts, params, use_tqdm=False)
    return batch * tokens / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
