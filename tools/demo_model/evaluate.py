"""Examines a demo model folder on held-out questions: greedy, exact match, by category.

The questions are those of `generate` that no training example contains.
"""

from __future__ import annotations

import argparse
from collections import Counter
from itertools import islice
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tools.demo_model.generate import Example, examples
from tools.demo_model.tokenizer import prompt_and_answer

EXAMINATION_SEED = 20_000


def held_out(num_questions: int) -> list[Example]:
    """The examination: the same questions each time, none twice."""
    chosen: dict[str, Example] = {}
    for example in islice(examples(EXAMINATION_SEED, held_out=True), 20 * num_questions):
        chosen.setdefault(prompt_and_answer(example)[0], example)
        if len(chosen) == num_questions:
            break
    return list(chosen.values())


@torch.inference_mode()
def answers(folder: Path, prompts: list[str], max_new_tokens: int = 96) -> list[str]:
    """What the model in `folder` goes on with after each prompt, special tokens included."""
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    found: dict[str, str] = {}
    ordered = sorted(prompts, key=len)
    for start in range(0, len(ordered), 64):
        group = ordered[start : start + 64]
        inputs = tokenizer(group, return_tensors="pt", padding=True, add_special_tokens=False)
        output = model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
        )
        for prompt, row in zip(group, output[:, inputs["input_ids"].shape[1] :]):
            text = tokenizer.decode(row, clean_up_tokenization_spaces=False)
            found[prompt] = text.split("<|im_end|>")[0].split("<|endoftext|>")[0]
    return [found[prompt] for prompt in prompts]


def main() -> None:
    parser = argparse.ArgumentParser(description="Examine a demo model.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--num-questions", type=int, default=500)
    parser.add_argument("--show", type=int, default=0, help="print this many wrong answers")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    questions = held_out(args.num_questions)
    pairs = [prompt_and_answer(question) for question in questions]
    given = answers(args.folder, [prompt for prompt, _ in pairs])
    asked: Counter[str] = Counter()
    right: Counter[str] = Counter()
    shown = 0
    for example, (prompt, expected), answer in zip(questions, pairs, given):
        is_right = answer == expected.removesuffix("<|im_end|>")
        asked[example.category] += 1
        right[example.category] += is_right
        if not is_right and shown < args.show:
            shown += 1
            print(f"{example.category}: {prompt[-160:]!r}\n  got  {answer!r}\n  want {expected!r}")
    for category in sorted(asked):
        print(f"{category:14} {right[category]:3} of {asked[category]:3}")
    percent = 100 * sum(right.values()) / len(questions)
    print(f"{'all':14} {sum(right.values()):3} of {len(questions):3}  {percent:.1f} %")


if __name__ == "__main__":
    main()
