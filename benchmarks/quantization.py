"""The demo model's held-out questions, answered with every scheme of `--quantization` or form of checkpoint.

    python -m benchmarks.quantization [NAME ...]        how many answers are right, scheme by scheme
    python -m benchmarks.quantization --table --accuracy   answers of every form of checkpoint that has none yet
    python -m benchmarks.quantization --table --speed      speeds of their formats: minutes, on an idle machine
    python -m benchmarks.quantization --table           both as the table of docs/quantization.md
    python -m benchmarks.quantization --checkpoints PATH ...   the demo model quantized before

The questions are `tools.demo_model.evaluate`'s. Speed is that of the products of a layer of Qwen3-0.6B's shape
in the formats that a form is kept in, against bfloat16 in turns: `benchmarks.product_speed`. The table's numbers
are kept in ~/.cache/quire-peers/results/quantization.json; names given after `--accuracy` are counted again.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import torch

from benchmarks.quantization_table import Findings, count_answers, time_products, write_page
from quire import LLM, SamplingParams
from quire.hardware.cpu import read_machine
from quire.quant.schemes.online import SCHEMES
from tools.demo_model.evaluate import held_out
from tools.demo_model.tokenizer import prompt_and_answer

MODEL = "quire/models/demo"
NUM_QUESTIONS = 500
MOST_LOST = {"int8": 1, "int8_g128": 1}
OTHERS_MAY_LOSE = 10


def answers(
    prompts: list[str],
    dtype: str,
    scheme: str | None,
    model: str = MODEL,
    threads: int | None = None,
) -> list[str]:
    """Greedy answers of the demo model without their end marks."""
    llm = LLM(
        model=model,
        tokenizer=MODEL,
        dtype=dtype,
        quantization=scheme,
        threads=threads,
        use_tqdm_on_load=False,
    )
    params = SamplingParams(max_tokens=96, temperature=0.0, skip_special_tokens=False)
    outputs = llm.generate(prompts, params, use_tqdm=False)
    texts = [output.outputs[0].text for output in outputs]
    return [text.split("<|im_end|>")[0].split("<|endoftext|>")[0] for text in texts]


class Questions:
    """The held-out questions, their answers, and what the plain checkpoint answers."""

    def __init__(self, dtype: str, threads: int | None) -> None:
        pairs = [prompt_and_answer(question) for question in held_out(NUM_QUESTIONS)]
        self._dtype, self._threads = dtype, threads
        self._prompts = [prompt for prompt, _ in pairs]
        self._wanted = [answer.removesuffix("<|im_end|>") for _, answer in pairs]
        self._plain = answers(self._prompts, dtype, None, threads=threads)
        self.best = sum(map(str.__eq__, self._plain, self._wanted))

    def ask(self, scheme: str | None, model: str = MODEL) -> tuple[int, int]:
        """How many answers are right, and how many are those of the plain checkpoint."""
        texts = answers(self._prompts, self._dtype, scheme, model, self._threads)
        right = sum(map(str.__eq__, texts, self._wanted))
        return right, sum(map(str.__eq__, texts, self._plain))

    def compare(self, model: str, other: str) -> int:
        """How many answers of two checkpoints are the same, both computed in float32."""
        texts = [
            answers(self._prompts, "float32", None, path, self._threads) for path in (model, other)
        ]
        return sum(map(str.__eq__, *texts))


def make_table(given: argparse.Namespace) -> int:
    """The parts that are asked for; then the page."""
    findings = Findings()
    if given.accuracy:
        questions = Questions(given.dtype, given.threads)
        plain = {"right": questions.best, "same": NUM_QUESTIONS, "same_as_floats": "", "writer": ""}
        size = (Path(MODEL) / "model.safetensors").stat().st_size
        findings.forms = {
            given.dtype: plain | {"bytes": size, "counts": {"plain": 1}}
        } | findings.forms
        ask = functools.partial(questions.ask, None)
        count_answers(findings, ask, questions.compare, given.names)
    if given.speed:
        torch.set_num_threads(read_machine().physical_cores)
        time_products(findings, given.dtype, given.rounds)
    write_page(findings)
    return 0


def main() -> int:
    """1 if a scheme loses more answers than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="schemes or forms; none is all")
    parser.add_argument("--dtype", default="bfloat16", help="of activations and plain weights")
    parser.add_argument("--checkpoints", nargs="*", help="the demo model in other forms, instead")
    parser.add_argument("--table", action="store_true", help="every form of checkpoint")
    parser.add_argument("--accuracy", action="store_true", help="of the table: count answers")
    parser.add_argument("--speed", action="store_true", help="of the table: time products")
    parser.add_argument("--rounds", type=int, default=15, help="of timing each product; 15")
    parser.add_argument("--threads", type=int, help="of counting answers; default: cores")
    given = parser.parse_args()
    if given.table:
        return make_table(given)
    questions = Questions(given.dtype, given.threads)
    print(f"{'plain':<16} {questions.best} of {NUM_QUESTIONS} right")
    for model in given.checkpoints or ():
        right, same = questions.ask(None, model)
        print(f"{model} {right} of {NUM_QUESTIONS} right, {same} as without it", flush=True)
    if given.checkpoints:
        return 0
    failed = False
    for name in given.names or SCHEMES:
        right, same = questions.ask(name)
        print(f"{name:<16} {right} of {NUM_QUESTIONS} right, {same} as without it", flush=True)
        failed |= questions.best - right > MOST_LOST.get(name, OTHERS_MAY_LOSE)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
