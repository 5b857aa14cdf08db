"""The demo model's held-out questions, answered with every scheme of `--quantization`.

Run as `python -m benchmarks.quantization [NAME ...]`: prints how many of the answers are right and how
many are those of the plain checkpoint; with `--checkpoints PATH ...` of the same model quantized before.
The questions are `tools.demo_model.evaluate`'s.
"""

from __future__ import annotations

import argparse
import sys

from quire import LLM, SamplingParams
from quire.quant.schemes.online import SCHEMES
from tools.demo_model.evaluate import held_out
from tools.demo_model.tokenizer import prompt_and_answer

MODEL = "quire/models/demo"
NUM_QUESTIONS = 500
MOST_LOST = {"int8": 1, "int8_g128": 1}
OTHERS_MAY_LOSE = 10


def answers(prompts: list[str], dtype: str, scheme: str | None, model: str = MODEL) -> list[str]:
    """Greedy answers of the demo model without their end marks."""
    llm = LLM(
        model=model, tokenizer=MODEL, dtype=dtype, quantization=scheme, use_tqdm_on_load=False
    )
    params = SamplingParams(max_tokens=96, temperature=0.0, skip_special_tokens=False)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    texts = [output.outputs[0].text for output in outputs]
    return [text.split("<|im_end|>")[0].split("<|endoftext|>")[0] for text in texts]


def main() -> int:
    """1 if a scheme loses more answers than it may."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="schemes; none is all")
    parser.add_argument("--dtype", default="bfloat16", help="of activations and plain weights")
    parser.add_argument("--checkpoints", nargs="*", help="the demo model in other forms, instead")
    given = parser.parse_args()
    pairs = [prompt_and_answer(question) for question in held_out(NUM_QUESTIONS)]
    prompts = [prompt for prompt, _ in pairs]
    wanted = [answer.removesuffix("<|im_end|>") for _, answer in pairs]
    plain = answers(prompts, given.dtype, None)
    best = sum(map(str.__eq__, plain, wanted))
    print(f"{'plain':<16} {best} of {len(pairs)} right")
    for model in given.checkpoints or ():
        texts = answers(prompts, given.dtype, None, model)
        right, same = sum(map(str.__eq__, texts, wanted)), sum(map(str.__eq__, texts, plain))
        print(f"{model} {right} of {len(pairs)} right, {same} as without it", flush=True)
    if given.checkpoints:
        return 0
    failed = False
    for name in given.names or SCHEMES:
        texts = answers(prompts, given.dtype, name)
        right, same = sum(map(str.__eq__, texts, wanted)), sum(map(str.__eq__, texts, plain))
        print(f"{name:<16} {right} of {len(pairs)} right, {same} as without it", flush=True)
        failed |= best - right > MOST_LOST.get(name, OTHERS_MAY_LOSE)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
