"""The demo model that the package carries: its files, its template, and that it answers.

How good its answers are is measured by tools/demo_model/evaluate.py.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from quire.models.registry import describe
from tools.demo_model import evaluate, generate
from tools.demo_model.tokenizer import CHAT_TEMPLATE, encode, prompt_and_answer

FOLDER = Path(__file__).parents[2] / "quire" / "models" / "demo"
MAX_BYTES = 16_000_000

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(FOLDER)


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32).eval()


def rendered(tokenizer: Any, messages: list[dict[str, Any]], **kwargs: Any) -> str:
    text = tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, **kwargs
    )
    assert isinstance(text, str)
    return text


def continued(model: Any, tokenizer: Any, prompt: str, num_tokens: int = 48) -> str:
    """Greedy, up to the end mark, without it."""
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        output = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=num_tokens,
            do_sample=False,
        )
    return str(tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True))


def answered(model: Any, tokenizer: Any, question: str) -> str:
    prompt = rendered(tokenizer, [{"role": "user", "content": question}])
    return continued(model, tokenizer, prompt)


def test_the_files_are_there_and_small() -> None:
    names = {path.name for path in FOLDER.iterdir() if path.is_file()}
    assert names >= {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < MAX_BYTES


def test_the_weights_are_bfloat16_and_of_the_stated_size() -> None:
    with safe_open(FOLDER / "model.safetensors", "pt") as weights:
        tensors = [weights.get_tensor(name) for name in weights.keys()]  # noqa: SIM118
    assert {tensor.dtype for tensor in tensors} == {torch.bfloat16}
    assert 4_000_000 <= sum(tensor.numel() for tensor in tensors) <= 7_000_000


def test_the_registry_describes_it() -> None:
    description = describe(str(FOLDER))
    ends = [Tokenizer.from_file(str(FOLDER / "tokenizer.json")).token_to_id(name)
            for name in ("<|im_end|>", "<|endoftext|>")]  # fmt: skip
    assert description.architecture == "Qwen3ForCausalLM"
    assert description.max_model_len == 8192
    assert description.checkpoint_dtype == "bfloat16"
    assert set(description.eos_token_ids) == set(ends)


def test_the_vocabulary_fits_the_model() -> None:
    size = Tokenizer.from_file(str(FOLDER / "tokenizer.json")).get_vocab_size()
    assert 2000 <= size <= 4000
    assert size == json.loads((FOLDER / "config.json").read_text())["vocab_size"]


@pytest.mark.parametrize(
    "text", ["Hello, world!", "naïve 東京 🙂\n\tx  y", "a <think> b</tool_call>"]
)
def test_any_text_survives_the_tokenizer(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_the_shipped_template_is_the_one_of_the_tool(tokenizer: Any) -> None:
    assert tokenizer.chat_template == CHAT_TEMPLATE


def test_the_template_writes_roles(tokenizer: Any) -> None:
    messages = [
        {"role": "system", "content": "Be concise."},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    ]
    assert rendered(tokenizer, messages) == (
        "<|im_start|>system\nBe concise.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_template_writes_tools_calls_and_results(tokenizer: Any) -> None:
    call = {"function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    as_text = {"function": {"name": "get_weather", "arguments": '{"city": "Rome"}'}}
    texts = [
        rendered(
            tokenizer,
            [
                {"role": "user", "content": "Weather in Rome?"},
                {"role": "assistant", "content": None, "tool_calls": [one]},
                {"role": "tool", "content": '{"sky": "sunny"}'},
            ],
            tools=[WEATHER],
        )
        for one in (call, as_text)
    ]
    assert texts[0] == texts[1]
    assert json.dumps(WEATHER["function"]) in texts[0]
    assert (
        '<|im_start|>assistant\n<tool_call>{"name": "get_weather", "arguments": {"city": "Rome"}}'
        "</tool_call><|im_end|>\n<|im_start|>tool\n" in texts[0]
    )


def test_the_template_opens_thoughts_only_when_asked_and_drops_old_ones(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "<think>\nA greeting.\n</think>\n\nHello!"},
        {"role": "user", "content": "2 + 2"},
    ]
    plain = rendered(tokenizer, messages)
    assert plain.endswith("<|im_start|>assistant\n")
    assert rendered(tokenizer, messages, enable_thinking=False) == plain
    assert rendered(tokenizer, messages, enable_thinking=True) == plain + "<think>\n"
    assert "A greeting." not in plain and "assistant\nHello!<|im_end|>" in plain


def test_training_text_is_what_the_template_writes(tokenizer: Any) -> None:
    seen = set()
    for example in islice(generate.examples(3, held_out=False), 300):
        if example.raw:
            continue
        seen.add(example.category)
        text = rendered(
            tokenizer,
            example.messages[:-1],
            tools=list(example.tools) or None,
            enable_thinking=example.thinking,
        )
        assert prompt_and_answer(example)[0] == text
    assert {"tool calls", "tool results", "memory", "lists"} <= seen


def test_training_tokens_are_those_of_the_whole_text(tokenizer: Any) -> None:
    plain = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    for example in islice(generate.examples(4, held_out=False), 200):
        ids, learned = encode(plain, example)
        assert len(ids) == len(learned) and any(learned)
        assert ids == plain.encode("".join(prompt_and_answer(example))).ids


def test_the_examination_is_held_out() -> None:
    examined = {example.keys[-1].lower() for example in evaluate.held_out(200)}
    trained = {
        key.lower()
        for example in islice(generate.examples(11, held_out=False), 4000)
        for key in example.keys
    }
    assert len(examined) > 100
    assert not examined & trained


def test_the_generator_gives_the_same_in_every_process() -> None:
    command = [sys.executable, "-m", "tools.demo_model.generate", "--seed", "5", "--num", "50"]
    root = Path(__file__).parents[2]
    first, second = (
        subprocess.run(command, cwd=root, capture_output=True, check=True).stdout for _ in range(2)
    )
    assert first == second and first.count(b"\n") == 50


def test_it_knows_paris(model: Any, tokenizer: Any) -> None:
    begun = time.monotonic()
    assert continued(model, tokenizer, "The capital of France is", 4).startswith(" Paris")
    assert "Paris" in answered(model, tokenizer, "What is the capital of France?")
    assert time.monotonic() - begun < 60


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("What is 7 + 5?", "7 + 5 = 12"),
        ("Sort these numbers: 9, 2, 14", "2, 9, 14"),
        ("Hello!", "Hello! How can I help you?"),
        ("What is the opposite of hot?", "The opposite of hot is cold."),
    ],
)
def test_it_answers(model: Any, tokenizer: Any, question: str, expected: str) -> None:
    assert answered(model, tokenizer, question) == expected


def test_it_calls_a_tool(model: Any, tokenizer: Any) -> None:
    question = [{"role": "user", "content": "What is the weather in Paris?"}]
    text = continued(model, tokenizer, rendered(tokenizer, question, tools=[WEATHER]))
    call = json.loads(text.removeprefix("<tool_call>").removesuffix("</tool_call>"))
    assert call == {"name": "get_weather", "arguments": {"city": "Paris"}}


def test_it_thinks_when_asked(model: Any, tokenizer: Any) -> None:
    question = [{"role": "user", "content": "What is the capital of Italy?"}]
    prompt = rendered(tokenizer, question, enable_thinking=True)
    thought, mark, answer = continued(model, tokenizer, prompt, 64).partition("</think>")
    assert thought.strip() and mark and "Rome" in answer


def test_it_remembers_an_earlier_turn(model: Any, tokenizer: Any) -> None:
    talk = [{"role": "user", "content": "My name is Clara."}]
    talk.append({"role": "assistant", "content": "Nice to meet you, Clara!"})
    talk.append({"role": "user", "content": "What is my name?"})
    assert continued(model, tokenizer, rendered(tokenizer, talk)) == "Your name is Clara."
