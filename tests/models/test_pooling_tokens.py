"""Vectors and weights of tokens against Transformers' states under the formulas: BGE-M3, and PyLate's modules."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from quire import LLM, PoolingParams
from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from tests.checkpoints import BOS_ID, prompt_ids
from tests.pooling_checkpoints import states, unit, write_model

CLOSE = {"atol": 2e-5, "rtol": 2e-5}
END = 7  # the tokenizer's own end is padding here
M3 = {"architectures": ["BgeM3EmbeddingModel"]}


def start(folder: Path, **settings: Any) -> LLM:
    options = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False, "max_num_seqs": 16}
    return LLM(str(folder), **options | settings)


def write_m3(folder: Path) -> tuple[Any, dict[str, dict[str, torch.Tensor]]]:
    """A model with the heads' files of BAAI/bge-m3, and the heads."""
    model = write_model(folder, "XLMRoberta", eos_token_id=END)
    generator = torch.Generator().manual_seed(2)
    heads = {}
    for name, rows in (("sparse_linear", 1), ("colbert_linear", 64)):
        weight = torch.randn(rows, 64, generator=generator) * 0.2
        heads[name] = {"weight": weight, "bias": torch.randn(rows, generator=generator) * 0.2}
        torch.save(heads[name], folder / f"{name}.pt")
    return model, heads


def of_head(head: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    return rows @ head["weight"].T + head["bias"]


def test_bge_m3_weighs_words_and_turns_tokens(tmp_path: Path) -> None:
    model, heads = write_m3(tmp_path)
    inner = (prompt_ids(length, length) for length in (1, 6, 50))
    prompts = [[BOS_ID, *ids, END] for ids in inner] + [[BOS_ID, END], [9, 11, 10], [BOS_ID]]
    tasks = ("embed", "token_embed", "token_classify", "embed&token_classify")
    with start(tmp_path, hf_overrides=M3) as llm:
        found, raw = (
            {
                task: llm.encode(
                    prompts, PoolingParams(use_activation=on), pooling_task=task, use_tqdm=False
                )
                for task in tasks
            }
            for on in (None, False)
        )
        alone = {
            task: [llm.encode([ids], pooling_task=task, use_tqdm=False)[0] for ids in prompts]
            for task in tasks
        }
    for task in tasks:
        for one, other in zip(found[task], alone[task], strict=True):
            assert torch.equal(one.outputs.data, other.outputs.data)
    for place, ids in enumerate(prompts):
        rows = states(model, ids)
        begin, end = int(ids[0] == BOS_ID), int(ids[-1] == END)
        inside = rows[begin : len(ids) - end]
        weights = of_head(heads["sparse_linear"], inside)[:, 0]
        vectors = of_head(heads["colbert_linear"], rows[begin:])
        embedded = unit(rows[0])
        wanted = {
            "embed": (embedded, rows[0]),
            "token_embed": (unit(vectors), vectors),
            "token_classify": (weights.relu(), weights),
            "embed&token_classify": (
                torch.cat((embedded, weights.relu())),
                torch.cat((rows[0], weights)),
            ),
        }
        for task, (active, plain) in wanted.items():
            assert found[task][place].outputs.data.shape == active.shape
            torch.testing.assert_close(found[task][place].outputs.data, active, **CLOSE)
            torch.testing.assert_close(raw[task][place].outputs.data, plain, **CLOSE)


def test_bge_m3_compares_texts_by_its_vectors_of_tokens_if_asked(tmp_path: Path) -> None:
    model, heads = write_m3(tmp_path)
    texts = ["The river runs down.", "the children leave the school"]
    with start(tmp_path, hf_overrides=M3, pooler_config={"task": "token_embed"}) as llm:
        score = llm.score(*texts, use_tqdm=False)[0].outputs.score
        ids = [llm.get_tokenizer().encode(text) for text in texts]
    query, text = (
        unit(of_head(heads["colbert_linear"], states(model, one)[int(one[0] == BOS_ID) :]))
        for one in ids
    )
    assert score == pytest.approx(float((query @ text.T).max(dim=1).values.sum()), abs=1e-4)


@pytest.mark.parametrize("pickled", [False, True])
def test_bge_m3_needs_the_files_of_its_heads(pickled: bool, tmp_path: Path) -> None:
    write_m3(tmp_path)
    (tmp_path / "sparse_linear.pt").unlink()
    if pickled:  # another size
        torch.save(
            {"weight": torch.ones(2, 64), "bias": torch.ones(2)}, tmp_path / "sparse_linear.pt"
        )
    with pytest.raises(
        ModelLoadError, match=r"sparse_linear.pt (holds|, a)|lacks sparse_linear.pt"
    ):
        start(tmp_path, hf_overrides=M3)


def test_pickled_weights_keep_the_heads_and_the_modules_beside_them(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    model, heads = write_m3(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [{"path": at, "type": f"sentence_transformers.models.{kind}"} for at, kind in kinds]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    ids = [BOS_ID, *prompt_ids(9, 1), END]
    with start(tmp_path, hf_overrides=M3, load_format="pt") as llm:
        embedded = llm.embed([ids], use_tqdm=False)[0].outputs.embedding
        weighed = llm.encode([ids], pooling_task="token_classify", use_tqdm=False)[0].outputs.data
    rows = states(model, ids)
    torch.testing.assert_close(torch.tensor(embedded), unit(rows.mean(0)), **CLOSE)
    wanted = of_head(heads["sparse_linear"], rows[1:-1])[:, 0].relu()
    torch.testing.assert_close(weighed, wanted, **CLOSE)


def write_pylate(folder: Path, sizes: tuple[int, ...], **changes: Any) -> tuple[Any, list[Any]]:
    """A ModernBERT with PyLate's products behind it, as GTE-ModernColBERT has one; what they multiply with."""
    model = write_model(folder, "ModernBert")
    modules = [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}]
    products = []
    for place, (size, out) in enumerate(zip((64, *sizes), sizes, strict=False), 1):
        inside = folder / f"{place}_Dense"
        inside.mkdir()
        weights = {"linear.weight": torch.randn(out, size) * 0.2}
        if changes.get("use_residual"):
            weights["residual.weight"] = torch.randn(out, size) * 0.2
        save_file(weights, inside / "model.safetensors")
        config = {"in_features": size, "out_features": out, "bias": False}
        config["activation_function"] = "torch.nn.modules.linear.Identity"
        (inside / "config.json").write_text(json.dumps(config | changes))
        modules.append({"idx": place, "path": inside.name, "type": "pylate.models.Dense.Dense"})
        products.append(sum(weights.values()))
    (folder / "modules.json").write_text(json.dumps(modules))
    return model, products


@pytest.mark.parametrize("residual", [False, True])
def test_pylate_s_modules_make_late_interaction(residual: bool, tmp_path: Path) -> None:
    torch.manual_seed(3)
    model, products = write_pylate(tmp_path, (80, 24) if residual else (24,), use_residual=residual)
    texts = ["The river runs down.", "Bread", "the children leave the school " * 3]
    with start(tmp_path) as llm:
        outputs = llm.score(texts[0], texts, use_tqdm=False)
        ids = [llm.get_tokenizer().encode(text) for text in texts]
        vectors = llm.encode(ids, use_tqdm=False)
    rows = []
    for one, vector in zip(ids, vectors, strict=True):
        made = states(model, one)
        for product in products:
            made = made @ product.T
        rows.append(unit(made))
        torch.testing.assert_close(vector.outputs.data, rows[-1], **CLOSE)
    for output, row in zip(outputs, rows, strict=True):
        wanted = (rows[0] @ row.T).max(dim=1).values.sum()
        assert output.outputs.score == pytest.approx(float(wanted), abs=1e-4)


def test_vllm_s_name_of_the_same_is_known(tmp_path: Path) -> None:
    write_pylate(tmp_path, (24,))
    config = json.loads((tmp_path / "config.json").read_text())
    config["architectures"] = ["ColBERTModernBertModel"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    described = describe(str(tmp_path))
    assert described.architecture == "ModernBertModel"
    assert described.pooling.pooler.score_type == "late-interaction"


@pytest.mark.parametrize("base", [700.0, None])
def test_jina_colbert(base: float | None, tmp_path: Path) -> None:
    """Jina v3's encoder and a product, with the keys of the code that jina-colbert-v2 was published with."""
    model = write_model(
        tmp_path, "JinaEmbeddingsV3", rope_parameters={"rope_type": "default", "rope_theta": 700.0}
    )
    matrix = torch.randn(16, 64) * 0.3
    weights = load_file(tmp_path / "model.safetensors")
    named = {f"roberta.{name}": tensor for name, tensor in weights.items()}
    save_file(named | {"linear.weight": matrix}, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    config |= {"architectures": ["HF_ColBERT"], "model_type": "xlm-roberta"}
    config |= {"position_embedding_type": "rotary", "use_flash_attn": True}
    config |= {} if base is None else {"rotary_emb_base": base}
    (tmp_path / "config.json").write_text(json.dumps(config))
    options = {"hf_overrides": {"architectures": ["ColBERTJinaRobertaModel"]}}
    if base is None:
        with pytest.raises(ModelLoadError, match="rotary_emb_base"):
            start(tmp_path, **options)
        return
    prompts = [prompt_ids(length, length) for length in (1, 9, 60)]
    with start(tmp_path, **options) as llm:
        found = llm.encode(prompts, pooling_task="token_embed", use_tqdm=False)
    for ids, one in zip(prompts, found, strict=True):
        wanted = unit(states(model, ids) @ matrix.T)
        torch.testing.assert_close(one.outputs.data, wanted, **CLOSE)


def test_an_activation_of_tokens_vectors_is_refused(tmp_path: Path) -> None:
    write_pylate(tmp_path, (24,), activation_function="torch.nn.modules.activation.Tanh")
    with pytest.raises(ModelLoadError, match="vectors of tokens have none"):
        describe(str(tmp_path))
