"""Encoders and decoders run from Transformers' code for their hidden states: equal to it, and to themselves alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from quire import LLM
from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError, SettingsError
from tests.checkpoints import prompt_ids
from tests.models.foreign import followed_here
from tests.pooling_checkpoints import (
    SIZES,
    states,
    unit,
    write_model,
    write_modules,
    write_pair_tokenizer,
)

CLOSE = {"atol": 2e-5, "rtol": 2e-5}
PROMPTS = [prompt_ids(length, length) for length in (1, 7, 33, 100)]
IDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
UNDESCRIBED: dict[str, dict[str, Any]] = {
    "Albert": {"embedding_size": 32},  # whose layers share their weights
    "Electra": {"embedding_size": 32},
    "Data2VecText": {},  # whose positions begin behind the padding token's id
    "RobertaPreLayerNorm": {},
}


def write(folder: Path, family: str, kind: str = "Model") -> Any:
    """A random checkpoint of an encoder; the model of Transformers."""
    config = getattr(transformers, f"{family}Config")(**(SIZES | IDS | UNDESCRIBED[family]))
    torch.manual_seed(1)
    model = getattr(transformers, family + kind)(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn_like(weight) * (0.15 if weight.dim() == 2 else 0.2)
            weight.copy_(noise + 1 if weight.dim() == 1 and name.endswith("weight") else noise)
    model.save_pretrained(folder)
    write_pair_tokenizer(folder)
    return model


def start(folder: Path, **settings: Any) -> LLM:
    options = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False, "max_num_seqs": 16}
    with followed_here():
        return LLM(str(folder), **options | settings)


def embedded(llm: LLM) -> tuple[list[torch.Tensor], list[list[float]]]:
    """The vectors of tokens and the embeddings, which have the same bits alone as together."""
    tokens = llm.encode(PROMPTS, pooling_task="token_embed", use_tqdm=False)
    vectors = [one.outputs.embedding for one in llm.embed(PROMPTS, use_tqdm=False)]
    for ids, one, vector in zip(PROMPTS, tokens, vectors, strict=True):
        alone = llm.encode([ids], pooling_task="token_embed", use_tqdm=False)[0]
        assert torch.equal(one.outputs.data, alone.outputs.data)
        assert vector == llm.embed([ids], use_tqdm=False)[0].outputs.embedding
    return [one.outputs.data for one in tokens], vectors


@pytest.mark.parametrize("family", UNDESCRIBED)
def test_encoders_without_a_description_have_transformers_states(
    family: str, tmp_path: Path
) -> None:
    model = write(tmp_path, family)
    with start(tmp_path) as llm:
        tokens, vectors = embedded(llm)
    for ids, rows, vector in zip(PROMPTS, tokens, vectors, strict=True):
        theirs = states(model, ids)
        torch.testing.assert_close(rows, unit(theirs), **CLOSE)
        torch.testing.assert_close(torch.tensor(vector), unit(theirs[0]), **CLOSE)


def test_heads_of_training_are_left_unread_and_modules_say_how_to_pool(tmp_path: Path) -> None:
    model = write(tmp_path, "Electra", "ForMaskedLM")
    write_modules(tmp_path, "mean", max_length=120)
    with start(tmp_path) as llm:
        assert llm.llm_engine.client.info.max_model_len == 120
        found = llm.embed(PROMPTS, use_tqdm=False)
    for ids, one in zip(PROMPTS, found, strict=True):
        wanted = unit(states(model.electra, ids).mean(0))
        torch.testing.assert_close(torch.tensor(one.outputs.embedding), wanted, **CLOSE)


@pytest.mark.parametrize(("family", "kind"), [("Bert", "Model"), ("Qwen3", "ForCausalLM")])
def test_described_models_run_so_if_asked(family: str, kind: str, tmp_path: Path) -> None:
    model = write_model(tmp_path, family, kind)
    assert describe(str(tmp_path)).spec.program is None
    with start(tmp_path, runner="pooling", model_impl="transformers") as llm:
        assert describe(str(tmp_path)).spec.program is None
        tokens, vectors = embedded(llm)
    for ids, rows, vector in zip(PROMPTS, tokens, vectors, strict=True):
        theirs = states(model if kind == "Model" else model.model, ids)
        torch.testing.assert_close(rows, unit(theirs), **CLOSE)
        stands = theirs[0] if kind == "Model" else theirs[-1]
        torch.testing.assert_close(torch.tensor(vector), unit(stands), **CLOSE)


def test_bfloat16_is_close(tmp_path: Path) -> None:
    model = write(tmp_path, "Albert")
    with start(tmp_path, dtype="bfloat16") as llm:
        found = llm.embed(PROMPTS, use_tqdm=False)
    for ids, one in zip(PROMPTS, found, strict=True):
        wanted = states(model, ids)[0]
        cosine = torch.cosine_similarity(torch.tensor(one.outputs.embedding), wanted, dim=0)
        assert cosine > 0.995


def test_what_stands_above_the_states_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "Electra", "ForSequenceClassification")
    with followed_here(), pytest.raises(ModelLoadError, match="which embeds"):
        describe(str(tmp_path), model_impl="transformers")
    write(tmp_path, "Electra")
    with pytest.raises(SettingsError, match="made for pooling"):
        start(tmp_path, runner="generate")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"model_type": "mpnet"}, "attention interface"),
        ({"model_type": "nobody"}, "not supported"),
        ({"model_type": "clip"}, "more than text"),
        ({"model_type": "dinov2"}, "more than text"),
        ({"model_type": "electra", "is_encoder_decoder": True}, "an encoder and a decoder"),
    ],
)
def test_what_cannot_run_is_refused(values: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["NobodyModel"], **values}))
    with pytest.raises(ModelLoadError, match=words):
        describe(str(tmp_path))
