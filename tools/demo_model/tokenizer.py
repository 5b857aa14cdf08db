"""The demo model's tokenizer: trains it, writes its files, and turns examples into tokens.

The examples are made in `generate`; the weights are made in `train`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tools.demo_model.generate import Example, examples

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<think>", "</think>", "<tool_call>", "</tool_call>", "<tools>", "</tools>"]
"""One token each, and part of the text: decoding keeps them."""

WORD_PATTERN = r" ?\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""Words with the space before them, numbers in pairs of digits, punctuation, white space."""

TOOL_INTRODUCTION = "You can call these tools:"
TOOL_INSTRUCTION = 'To call one, write <tool_call>{"name": NAME, "arguments": {...}}</tool_call>'

CHAT_TEMPLATE = (
    """\
{%- macro text_of(content) -%}
  {%- if content is string -%}{{ content }}
  {%- elif content -%}
    {%- for part in content -%}{%- if part.type == 'text' -%}{{ part.text }}{%- endif -%}{%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- set rest = namespace(start=0) -%}
{%- if tools -%}
  {{- '<|im_start|>system\\n' -}}
  {%- if messages and messages[0].role == 'system' -%}
    {%- set rest.start = 1 -%}
    {{- text_of(messages[0].content) + '\\n' -}}
  {%- endif -%}
  {{- '"""
    + TOOL_INTRODUCTION
    + """\\n<tools>\\n' -}}
  {%- for tool in tools -%}
    {%- set function = tool.function if tool.function is defined else tool -%}
    {{- function | tojson + '\\n' -}}
  {%- endfor -%}
  {{- '</tools>\\n"""
    + TOOL_INSTRUCTION
    + """<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages[rest.start:] -%}
  {{- '<|im_start|>' + message.role + '\\n' -}}
  {%- set content = text_of(message.content) -%}
  {%- if message.role == 'assistant' and '</think>' in content -%}
    {%- set content = content.split('</think>')[-1].lstrip('\\n') -%}
  {%- endif -%}
  {{- content -}}
  {%- for call in message.tool_calls or [] -%}
    {%- set function = call.function if call.function is defined else call -%}
    {%- if content or not loop.first -%}{{- '\\n' -}}{%- endif -%}
    {{- '<tool_call>{"name": "' + function.name + '", "arguments": ' -}}
    {%- if function.arguments is string -%}{{- function.arguments -}}
    {%- else -%}{{- function.arguments | tojson -}}{%- endif -%}
    {{- '}</tool_call>' -}}
  {%- endfor -%}
  {{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- '<|im_start|>assistant\\n' -}}
  {%- if enable_thinking is defined and enable_thinking -%}{{- '<think>\\n' -}}{%- endif -%}
{%- endif -%}
"""
)


def segments(example: Example) -> list[tuple[str, bool]]:
    """The text of `example` in pieces, each with whether the model is to learn to write it.

    Joined, and less the last answer, it is what the chat template gives.
    """
    if example.raw:
        prompt, rest = example.raw
        return [(prompt, False), (rest + "<|endoftext|>", True)]
    pieces: list[tuple[str, bool]] = []
    messages = list(example.messages)
    if example.tools:
        system = messages.pop(0)["content"] + "\n" if messages[0]["role"] == "system" else ""
        tools = "".join(json.dumps(t["function"]) + "\n" for t in example.tools)
        text = f"{system}{TOOL_INTRODUCTION}\n<tools>\n{tools}</tools>\n{TOOL_INSTRUCTION}"
        pieces.append((f"<|im_start|>system\n{text}<|im_end|>\n", False))
    for message in messages:
        head = f"<|im_start|>{message['role']}\n"
        text = message["content"]
        for call in message.get("tool_calls", ()):
            name, arguments = call["function"]["name"], json.dumps(call["function"]["arguments"])
            text += f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'
        if message["role"] != "assistant":
            pieces.append((f"{head}{text}<|im_end|>\n", False))
            continue
        if text.startswith("<think>\n"):  # the template writes it
            head, text = head + "<think>\n", text.removeprefix("<think>\n")
        pieces += [(head, False), (text + "<|im_end|>", True), ("\n", False)]
    return pieces[:-1]


def prompt_and_answer(example: Example) -> tuple[str, str]:
    """What the model is given, and what it must go on with, its end mark included."""
    pieces = [text for text, _ in segments(example)]
    return "".join(pieces[:-1]), pieces[-1]


def encode(tokenizer: Tokenizer, example: Example) -> tuple[list[int], list[bool]]:
    """Token ids, and for each whether the model is to learn to write it."""
    ids: list[int] = []
    learned: list[bool] = []
    for text, is_learned in segments(example):
        piece = tokenizer.encode(text, add_special_tokens=False).ids
        ids += piece
        learned += [is_learned] * len(piece)
    return ids, learned


def train_tokenizer(seed: int, num_examples: int, vocab_size: int) -> Tokenizer:
    """A byte-level BPE of at most `vocab_size` tokens, the special ones first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(WORD_PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(MARKS),
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )

    def texts() -> Iterator[str]:
        for example in islice(examples(seed, held_out=False), num_examples):
            text = "".join(text for text, _ in segments(example))
            for mark in SPECIAL + MARKS:
                text = text.replace(mark, "\n")
            yield text
        for number in range(100):  # every number of two digits is a token
            yield f"{number:02d} {number} " * 20

    tokenizer.train_from_iterator(texts(), trainer)
    tokenizer.add_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    return tokenizer


def write(tokenizer: Tokenizer, folder: Path, max_len: int) -> None:
    """tokenizer.json and tokenizer_config.json into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_len,
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demo model's tokenizer.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--num-examples", type=int, default=30000)
    parser.add_argument("--vocab-size", type=int, default=3072)
    args = parser.parse_args()
    tokenizer = train_tokenizer(args.seed, args.num_examples, args.vocab_size)
    write(tokenizer, args.folder, 8192)
    print(f"{tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
