"""Tiny checkpoints for models that run from Transformers' code, and what they are compared with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import transformers

from quire import LLM, SamplingParams
from quire.models.foreign import ask
from quire.models.foreign.helper import answer_to
from quire.models.foreign.protocol import Answer, Request

VOCAB = 300
SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCAB,
    "max_position_embeddings": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


@dataclass(frozen=True)
class Foreign:
    """An architecture of Transformers: its class, its config's class, what differs from SIZES."""

    model: str
    config: str
    values: dict[str, Any] = field(default_factory=dict)


_WINDOW = {"head_dim": 16, "sliding_window": 16, "query_pre_attn_scalar": 16}
UNDESCRIBED = {
    "emu3": Foreign("Emu3ForCausalLM", "Emu3TextConfig"),
}
"""That have no description here."""
DESCRIBED = {
    "llama": Foreign("LlamaForCausalLM", "LlamaConfig", {"tie_word_embeddings": False}),
    "qwen3": Foreign("Qwen3ForCausalLM", "Qwen3Config", {"head_dim": 16}),
    "gemma2": Foreign(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        {**_WINDOW, "attn_logit_softcapping": 10.0, "final_logit_softcapping": 5.0},
    ),
    "phi3": Foreign("Phi3ForCausalLM", "Phi3Config"),
    "diffllama": Foreign("DiffLlamaForCausalLM", "DiffLlamaConfig"),
    "apertus": Foreign("ApertusForCausalLM", "ApertusConfig"),
    "ministral3": Foreign("Ministral3ForCausalLM", "Ministral3Config", {"head_dim": 16}),
    "biogpt": Foreign("BioGptForCausalLM", "BioGptConfig", {"num_key_value_heads": None}),
    "granite_swa": Foreign("GraniteSWAForCausalLM", "GraniteSWAConfig", {"sliding_window": 16}),
    "nanochat": Foreign("NanoChatForCausalLM", "NanoChatConfig"),
}
"""That have one, and run without it if they are told to."""
ALL = {**UNDESCRIBED, **DESCRIBED}


def write(name: str, folder: Path) -> Any:
    """Writes a random checkpoint; returns the model of Transformers in float32."""
    found = ALL[name]
    torch.manual_seed(7)
    config = getattr(transformers, found.config)(**{**SIZES, **found.values})
    model = getattr(transformers, found.model)(config).float().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.normal_(0.0, 0.08)
            else:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model


@contextmanager
def followed_here() -> Iterator[None]:
    """A block in which code is followed in this process, which has imported Transformers already."""

    def asked(request: bytes) -> Any:
        answer = answer_to(msgspec.json.decode(request, type=Request))
        return msgspec.json.decode(msgspec.json.encode(answer), type=Answer)

    patch = pytest.MonkeyPatch()
    patch.setattr(ask, "_asked", asked)
    try:
        yield
    finally:
        patch.undo()


def engine(folder: Path, **settings: Any) -> LLM:
    """An engine of Transformers' code in float32."""
    with followed_here():
        return LLM(
            model=str(folder),
            skip_tokenizer_init=True,
            max_model_len=128,
            **{"model_impl": "transformers", "dtype": "float32", **settings},
        )


def prompts(*lengths: int) -> list[list[int]]:
    """Random prompts of these lengths."""
    torch.manual_seed(3)
    return [torch.randint(3, VOCAB, (length,)).tolist() for length in lengths]


def generated(
    llm: LLM, ids: list[list[int]], num_tokens: int = 12
) -> list[tuple[list[int], list[float]]]:
    """Greedy ids and their log-probabilities."""
    params = SamplingParams(
        temperature=0, max_tokens=num_tokens, ignore_eos=True, logprobs=0, detokenize=False
    )
    outs = llm.generate([{"prompt_token_ids": one} for one in ids], params, use_tqdm=False)
    return [
        (
            list(out.outputs[0].token_ids),
            [
                step[token].logprob
                for token, step in zip(
                    out.outputs[0].token_ids, out.outputs[0].logprobs, strict=True
                )
            ],
        )
        for out in outs
    ]


Expected = Callable[[list[int], list[int]], tuple[list[int], list[float]]]


def expected(model: Any, prompt: list[int], ids: list[int]) -> tuple[list[int], list[float]]:
    """What Transformers finds best at each place of `ids` after `prompt`, and what it gives `ids`."""
    with torch.no_grad():
        rows = model(torch.tensor([prompt + ids])).logits[0].float().log_softmax(-1)
    rows = rows[len(prompt) - 1 : -1]
    return rows.argmax(-1).tolist(), [
        float(row[token]) for row, token in zip(rows, ids, strict=True)
    ]
