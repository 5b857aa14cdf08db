"""The tiny checkpoints do what the other tests need of them; running them is those tests' business."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import BOS_ID, EOS_ID, FAMILIES, TEXT, prompt_ids

Checkpoint = Callable[..., Path]


def greedy(folder: Path, prompt: list[int], length: int = 48) -> list[int]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = torch.tensor([prompt])
    out = model.generate(ids, max_new_tokens=length, do_sample=False, pad_token_id=BOS_ID)
    return out[0, len(prompt) :].tolist()


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_outputs_are_varied_and_long(checkpoint: Checkpoint, family: str) -> None:
    outputs = [greedy(checkpoint(family), prompt_ids(80, seed)) for seed in (0, 1)]
    assert outputs[0] != outputs[1]
    for output in outputs:
        assert len(output) == 48 and EOS_ID not in output
        assert len(set(output)) >= 12, f"{family} repeats itself: {output}"


def test_shards_hold_the_same_weights(checkpoint: Checkpoint) -> None:
    from safetensors.numpy import load_file

    whole = load_file(checkpoint("llama") / "model.safetensors")
    folder = checkpoint("llama", shards=3)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(whole)
    assert len(set(index["weight_map"].values())) == 3
    for name, file in index["weight_map"].items():
        assert (load_file(folder / file)[name] == whole[name]).all()


def test_seeds_give_different_weights_and_builds_are_repeatable(tmp_path: Path) -> None:
    def bytes_of(name: str, **kw: Any) -> bytes:
        return (FAMILIES["qwen3"](tmp_path / name, **kw) / "model.safetensors").read_bytes()

    first = bytes_of("a")
    assert bytes_of("b") == first
    assert bytes_of("c", seed=1) != first


@pytest.mark.parametrize("family", FAMILIES)
def test_tokenizer_loads_in_transformers_and_is_lossless(
    checkpoint: Checkpoint, family: str
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(checkpoint(family))
    ids = tokenizer(TEXT + "😀 日本")["input_ids"]
    assert (ids[0] == BOS_ID) == (family != "qwen3")
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXT + "😀 日本"
    assert tokenizer.eos_token_id == EOS_ID
