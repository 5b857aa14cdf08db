"""The demo model's held-out questions, answered with every scheme of `--quantization` or form of checkpoint.

    python -m benchmarks.quantization [NAME ...]        how many answers are right, scheme by scheme
    python -m benchmarks.quantization --table           the table of docs/quantization.md: every form
    python -m benchmarks.quantization --checkpoints PATH ...   the demo model quantized before

The questions are `tools.demo_model.evaluate`'s. Speed is that of the products of a layer of Qwen3-0.6B's shape
in the formats that a form is kept in, against bfloat16 in turns: `benchmarks.product_speed`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.product_speed import Speeds
from benchmarks.quantized_forms import written
from quire import LLM, SamplingParams
from quire.models.registry import describe
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


class Questions:
    """The held-out questions, their answers, and what the plain checkpoint answers."""

    def __init__(self, dtype: str) -> None:
        pairs = [prompt_and_answer(question) for question in held_out(NUM_QUESTIONS)]
        self._dtype = dtype
        self._prompts = [prompt for prompt, _ in pairs]
        self._wanted = [answer.removesuffix("<|im_end|>") for _, answer in pairs]
        self._plain = answers(self._prompts, dtype, None)
        self.best = sum(map(str.__eq__, self._plain, self._wanted))

    def ask(self, scheme: str | None, model: str = MODEL) -> tuple[int, int]:
        """How many answers are right, and how many are those of the plain checkpoint."""
        texts = answers(self._prompts, self._dtype, scheme, model)
        right = sum(map(str.__eq__, texts, self._wanted))
        return right, sum(map(str.__eq__, texts, self._plain))


def num_bytes(path: Path) -> int:
    """Bytes of a GGUF file, or of a folder's weights."""
    return path.stat().st_size if path.is_file() else (path / "model.safetensors").stat().st_size


def row(name: str, path: Path, questions: Questions, speeds: Speeds) -> str:
    """A line of the table. Products count as often as the layers have them; those that stay floats do too."""
    description = describe(str(path))
    counts: dict[str, int] = {}
    for layer in range(description.spec.num_layers):
        for part in ("mixer.qkv", "mixer.out", "feed_forward.gate_up", "feed_forward.down"):
            format = description.formats.of(f"layers.{layer}.{part}.weight").name
            counts[format] = counts.get(format, 0) + 1
    right, same = questions.ask(None, str(path))
    kept = ", ".join(sorted({run.split(":")[0] for kind in counts for run in kind.split("+")}))
    one, many = (speeds.ratio(counts, rows) for rows in (1, 32))
    return f"| {name} | {kept} | {num_bytes(path):,} | {right} | {same} | {one:.2f} | {many:.2f} |"


def table(questions: Questions, given: argparse.Namespace) -> None:
    """Prints a line for each form as soon as it is known."""
    print("| form | kept as | bytes | right | as plain | batch 1 | batch 32 |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: |")
    best, speeds = questions.best, Speeds(given.dtype, given.rounds)
    size = num_bytes(Path(MODEL))
    print(f"| {given.dtype} | plain | {size:,} | {best} | {NUM_QUESTIONS} | 1.00 | 1.00 |")
    with tempfile.TemporaryDirectory() as folder:
        for name, path in written(Path(folder)):
            print(row(name, path, questions, speeds), flush=True)


def main() -> int:
    """1 if a scheme loses more answers than it may."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="schemes; none is all")
    parser.add_argument("--dtype", default="bfloat16", help="of activations and plain weights")
    parser.add_argument("--checkpoints", nargs="*", help="the demo model in other forms, instead")
    parser.add_argument("--table", action="store_true", help="every form, written for this")
    parser.add_argument("--rounds", type=int, default=15, help="of timing each product; 15")
    given = parser.parse_args()
    questions = Questions(given.dtype)
    if given.table:
        table(questions, given)
        return 0
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
