"""SPLADE against Transformers' logits under sentence-transformers' formula, and the names that ask for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quire import LLM
from quire.protocol.errors import ModelLoadError
from tests.checkpoints import prompt_ids
from tests.pooling_checkpoints import write_model

PROMPTS = [prompt_ids(length, length) for length in (1, 9, 100)]
OPTIONS: dict[str, Any] = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False}
NAMED = {"architectures": ["BertSpladeSparseEmbeddingModel"]}


def write_splade(folder: Path, family: str, **settings: Any) -> Any:
    """A model with the files that sentence-transformers writes for it."""
    model = write_model(folder, family, "ForMaskedLM")
    kinds = {"MLMTransformer": "", "SpladePooling": "1_SpladePooling"}
    modules = [
        {"idx": at, "name": str(at), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for at, (kind, path) in enumerate(kinds.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_SpladePooling").mkdir()
    said = {"pooling_strategy": "max", "activation_function": "relu", **settings}
    (folder / "1_SpladePooling" / "config.json").write_text(json.dumps(said))
    return model


@torch.no_grad()
def wanted(model: Any, ids: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([ids])).logits[0]
    return torch.log1p(torch.relu(logits)).amax(0)


@pytest.mark.parametrize("family", ["Bert", "DistilBert", "XLMRoberta", "ModernBert"])
def test_words_of_a_text(family: str, tmp_path: Path) -> None:
    model = write_splade(tmp_path, family)
    with LLM(str(tmp_path), max_num_seqs=16, **OPTIONS) as llm:
        found = llm.embed(PROMPTS, use_tqdm=False)
        alone = [llm.embed([ids], use_tqdm=False)[0] for ids in PROMPTS]
        texts = ("a river", "runs")
        score = llm.score(*texts, use_tqdm=False)[0].outputs.score
        sides = [one.outputs.embedding for one in llm.embed(list(texts), use_tqdm=False)]
    assert [one.outputs.embedding for one in found] == [one.outputs.embedding for one in alone]
    for ids, one in zip(PROMPTS, found, strict=True):
        expected = wanted(model, ids)
        assert len(ids) > 1 or 0.0 in one.outputs.embedding  # words that say nothing
        torch.testing.assert_close(
            torch.tensor(one.outputs.embedding), expected, atol=5e-5, rtol=5e-5
        )
    product = sum(a * b for a, b in zip(*sides, strict=True))
    assert score == pytest.approx(product, rel=1e-9)


def test_the_name_that_vllm_gives_it(tmp_path: Path) -> None:
    model = write_model(tmp_path, "Bert", "ForMaskedLM")
    with LLM(str(tmp_path), hf_overrides=NAMED, **OPTIONS) as llm:
        found = llm.embed(PROMPTS[1:2], use_tqdm=False)[0].outputs.embedding
    torch.testing.assert_close(torch.tensor(found), wanted(model, PROMPTS[1]), atol=5e-5, rtol=5e-5)


def test_what_is_not_known_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    write_splade(tmp_path / "a", "Bert", pooling_strategy="sum")
    with pytest.raises(ModelLoadError, match="pooling_strategy is 'sum'; known is 'max'"):
        LLM(str(tmp_path / "a"), **OPTIONS)
    write_model(tmp_path / "b", "Bert")
    with pytest.raises(ModelLoadError, match="has no head of words, which SPLADE needs"):
        LLM(str(tmp_path / "b"), hf_overrides=NAMED, **OPTIONS)
