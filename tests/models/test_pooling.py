"""Pooling models against Transformers: hidden states of encoders, heads, how a text is pooled."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from quire import LLM, AsyncLLM, EngineArgs, PoolingParams
from quire.models.pooling import PoolingWish
from quire.models.registry import describe
from quire.protocol.errors import InvalidRequestError, ModelLoadError, SettingsError
from tests.checkpoints import prompt_ids
from tests.models import harness
from tests.models.families import CASES
from tests.pooling_checkpoints import (
    logits,
    states,
    unit,
    write_model,
    write_modules,
)

TEXTS = [
    "The river runs down.",
    "Bread",
    "the children leave the school and run to the market " * 2,
]
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


def start(folder: Path, **settings: Any) -> LLM:
    options = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False, "max_num_seqs": 16}
    return LLM(str(folder), **options | settings)


def data(outputs: list[Any]) -> list[torch.Tensor]:
    return [one.outputs.data for one in outputs]


@pytest.mark.parametrize(
    "family",
    [
        "Bert",
        "Roberta",
        "XLMRoberta",
        "DistilBert",
        "ModernBert",
        "NomicBert",
        "Gte",
        "JinaEmbeddingsV3",
        "EuroBert",
    ],
)
def test_encoders_have_the_hidden_states_of_transformers(family: str, tmp_path: Path) -> None:
    model = write_model(tmp_path, family)
    prompts = [prompt_ids(length, length) for length in (1, 7, 33, 100)]
    with start(tmp_path) as llm:
        ours = data(
            llm.encode(
                prompts,
                PoolingParams(use_activation=False),
                pooling_task="token_embed",
                use_tqdm=False,
            )
        )
        first = llm.embed(prompts, use_tqdm=False)
    for ids, found, embedded in zip(prompts, ours, first, strict=True):
        theirs = states(model, ids)
        torch.testing.assert_close(found, theirs, **CLOSE)
        torch.testing.assert_close(
            torch.tensor(embedded.outputs.embedding), unit(theirs[0]), **CLOSE
        )


def test_nomic_s_published_spelling(tmp_path: Path) -> None:
    model = write_model(tmp_path, "NomicBert")
    published = {
        "architectures": ["NomicBertModel"],
        "model_type": "nomic_bert",
        "activation_function": "swiglu",
        "n_embd": 64,
        "n_head": 4,
        "n_inner": 96,
        "n_layer": 3,
        "n_positions": 260,
        "max_trained_positions": 130,
        "layer_norm_epsilon": 1e-12,
        "rotary_emb_base": 1000,
        "rotary_emb_fraction": 1.0,
        "rotary_scaling_factor": None,
        "prenorm": False,
        "qkv_proj_bias": False,
        "type_vocab_size": 2,
        "vocab_size": 512,
    }
    (tmp_path / "config.json").write_text(json.dumps(published))
    with start(tmp_path) as llm:
        output = llm.embed(TEXTS[0], use_tqdm=False)[0]
    theirs = unit(states(model, output.prompt_token_ids)[0])
    torch.testing.assert_close(torch.tensor(output.outputs.embedding), theirs, **CLOSE)


def test_gte_s_published_spelling(tmp_path: Path) -> None:
    """Its code makes the base eightfold and divides all angles by 8^(2 / size of a head)."""
    turns = {"rope_type": "linear", "factor": 8 ** (2 / 16), "rope_theta": 160_000.0}
    model = write_model(tmp_path, "Gte", rope_parameters=turns)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["rope_parameters"]
    published = {"architectures": ["NewModel"], "model_type": "new", "pack_qkv": True}
    published |= {"position_embedding_type": "rope", "rope_theta": 20_000, "unpad_inputs": False}
    published |= {"rope_scaling": {"type": "ntk", "factor": 8.0}, "layer_norm_type": "layer_norm"}
    published |= {"logn_attention_scale": False, "logn_attention_clip1": False}
    (tmp_path / "config.json").write_text(json.dumps(config | published))
    with start(tmp_path) as llm:
        output = llm.embed(TEXTS[2], use_tqdm=False)[0]
    theirs = unit(states(model, output.prompt_token_ids)[0])
    torch.testing.assert_close(torch.tensor(output.outputs.embedding), theirs, **CLOSE)


@pytest.mark.parametrize("pooling", ["cls", "mean", "last"])
def test_sentence_transformers_files_say_how_a_text_is_pooled(pooling: str, tmp_path: Path) -> None:
    model = write_model(tmp_path, "Bert")
    write_modules(tmp_path, pooling, max_length=60)
    with start(tmp_path) as llm:
        assert llm.llm_engine.client.info.max_model_len == 60
        for output in llm.embed(TEXTS, use_tqdm=False):
            theirs = states(model, output.prompt_token_ids)
            rows = {"cls": theirs[0], "mean": theirs.mean(0), "last": theirs[-1]}
            torch.testing.assert_close(
                torch.tensor(output.outputs.embedding), unit(rows[pooling]), **CLOSE
            )


def test_dense_modules_follow_the_pooling_and_no_norm_comes_without_its_module(
    tmp_path: Path,
) -> None:
    model = write_model(tmp_path, "Qwen3")
    weight, bias = torch.randn(24, 64) * 0.2, torch.randn(24)
    dense = (weight, bias, "torch.nn.modules.activation.Tanh")
    write_modules(tmp_path, "last", normalizes=False, dense=dense)
    with start(tmp_path) as llm:
        for output in llm.embed(TEXTS, use_tqdm=False):
            last = states(model, output.prompt_token_ids)[-1]
            wanted = torch.tanh(weight @ last + bias)
            torch.testing.assert_close(torch.tensor(output.outputs.embedding), wanted, **CLOSE)


def test_a_module_that_is_not_known_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, "Bert")
    write_modules(tmp_path, "max")
    with pytest.raises(
        ModelLoadError, match=r"1_Pooling/config.json asks for pooling_mode_max_tokens"
    ):
        describe(str(tmp_path))


@pytest.mark.parametrize("family", ["Llama", "Qwen3", "ModernBertDecoder"])
def test_models_for_text_embed_by_their_last_token(family: str, tmp_path: Path) -> None:
    model = write_model(tmp_path, family, "ForCausalLM")
    with start(tmp_path, runner="pooling") as llm:
        outputs = llm.embed(TEXTS, use_tqdm=False)
    for output in outputs:
        theirs = states(model.model, output.prompt_token_ids)[-1]
        torch.testing.assert_close(torch.tensor(output.outputs.embedding), unit(theirs), **CLOSE)


@pytest.mark.parametrize("family", ["Qwen3", "ModernBertDecoder"])
def test_bare_decoders_are_embedders(family: str, tmp_path: Path) -> None:
    """Published embedders name the bare model, whose weights have no `model.` in front."""
    model = write_model(tmp_path, family, "Model")
    with start(tmp_path) as llm:
        output = llm.embed(TEXTS[0], use_tqdm=False)[0]
    theirs = unit(states(model, output.prompt_token_ids)[-1])
    torch.testing.assert_close(torch.tensor(output.outputs.embedding), theirs, **CLOSE)


def test_decoders_that_see_both_ways(tmp_path: Path) -> None:
    model = write_model(tmp_path, "Gemma3Text")
    config = json.loads((tmp_path / "config.json").read_text())
    # Transformers halves the window as it reads, and writes the half.
    (tmp_path / "config.json").write_text(json.dumps(config | {"sliding_window": 16}))
    write_modules(tmp_path, "mean")
    with start(tmp_path) as llm:
        output = llm.embed([prompt_ids(60, 4)], use_tqdm=False)[0]
    theirs = unit(states(model, output.prompt_token_ids).mean(0))
    torch.testing.assert_close(torch.tensor(output.outputs.embedding), theirs, **CLOSE)


@pytest.mark.parametrize("pooling", ["LAST", "MEAN", "CLS"])
def test_pieces_of_a_prompt_and_company_do_not_change_a_bit(pooling: str, tmp_path: Path) -> None:
    write_model(tmp_path, "Llama", "ForCausalLM", max_position_embeddings=512)
    prompts = [prompt_ids(length, length) for length in (300, 5, 120, 64)]
    found = []
    for budget in (512, 48):
        settings = {"runner": "pooling", "pooler_config": {"pooling_type": pooling}}
        with start(tmp_path, max_num_batched_tokens=budget, **settings) as llm:
            whole = llm.embed(prompts, use_tqdm=False)
            again = [llm.embed(prompt, use_tqdm=False)[0] for prompt in prompts]
            tokens = data(llm.encode(prompts, pooling_task="token_embed", use_tqdm=False))
        found.append(([one.outputs.embedding for one in whole], [one.tolist() for one in tokens]))
        assert found[-1][0] == [one.outputs.embedding for one in again]
    assert found[0] == found[1]


@pytest.mark.parametrize("pooling", ["LAST", "MEAN"])
def test_giving_way_for_want_of_blocks_changes_no_bit(pooling: str, tmp_path: Path) -> None:
    write_model(tmp_path, "Llama", "ForCausalLM", max_position_embeddings=256)
    prompts = [prompt_ids(length, length) for length in (200, 180, 220, 150)]
    settings = {"runner": "pooling", "pooler_config": {"pooling_type": pooling}}
    settings["max_num_batched_tokens"] = 100
    found = []
    for blocks in (9, 100):
        with start(tmp_path, block_size=32, num_gpu_blocks_override=blocks, **settings) as llm:
            outputs = llm.embed(prompts, use_tqdm=False)
            assert llm.llm_engine.client.call("blocks_in_use") == 0
        found.append([one.outputs.embedding for one in outputs])
    assert found[0] == found[1]


def test_the_prefix_cache_serves_the_last_token(tmp_path: Path) -> None:
    write_model(tmp_path, "Llama", "ForCausalLM", max_position_embeddings=512)
    prompt = prompt_ids(200, 3)
    with start(tmp_path, runner="pooling") as llm:
        first, second = (llm.embed(prompt, use_tqdm=False)[0] for _ in range(2))
        assert first.num_cached_tokens == 0 and second.num_cached_tokens >= 160
        assert first.outputs.embedding == second.outputs.embedding
        tokens = llm.encode(prompt, pooling_task="token_embed", use_tqdm=False)[0]
        assert tokens.num_cached_tokens == 0 and tuple(tokens.outputs.data.shape) == (200, 64)


def test_encoders_do_not_know_their_company(tmp_path: Path) -> None:
    write_model(tmp_path, "ModernBert")
    prompts = [prompt_ids(length, length) for length in (40, 3, 100, 17, 129)]
    with start(tmp_path, max_num_batched_tokens=130) as llm:
        narrow = [one.outputs.embedding for one in llm.embed(prompts, use_tqdm=False)]
    with start(tmp_path) as llm:
        wide = [one.outputs.embedding for one in llm.embed(prompts, use_tqdm=False)]
        alone = [llm.embed(one, use_tqdm=False)[0].outputs.embedding for one in prompts]
    assert narrow == wide == alone


@pytest.mark.parametrize(
    ("family", "labels"),
    [
        ("Bert", 3),
        ("Roberta", 2),
        ("XLMRoberta", 3),
        ("DistilBert", 4),
        ("ModernBert", 2),
        ("Qwen2", 3),
        ("Llama", 2),
        ("Mistral", 2),
        ("Qwen3", 2),
        ("Gte", 3),
        ("JinaEmbeddingsV3", 2),
        ("GPT2", 3),
        ("Jamba", 2),
        ("ModernBertDecoder", 3),
    ],
)
def test_classes_are_those_of_transformers(family: str, labels: int, tmp_path: Path) -> None:
    names = {place: f"class {place}" for place in range(labels)}
    model = write_model(tmp_path, family, "ForSequenceClassification", id2label=names)
    with start(tmp_path) as llm:
        outputs = llm.classify(TEXTS, use_tqdm=False)
        raw = data(llm.encode(TEXTS, PoolingParams(use_activation=False), use_tqdm=False))
    assert describe(str(tmp_path)).pooling.pooler.labels == tuple(names.values())
    for output, found in zip(outputs, raw, strict=True):
        theirs = logits(model, output.prompt_token_ids)
        torch.testing.assert_close(found, theirs, **CLOSE)
        torch.testing.assert_close(torch.tensor(output.outputs.probs), theirs.softmax(-1), **CLOSE)
        assert output.outputs.num_classes == labels


@pytest.mark.parametrize("family", ["Bert", "Roberta", "XLMRoberta", "ModernBert", "Qwen3"])
def test_classes_of_tokens_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    model = write_model(tmp_path, family, "ForTokenClassification", num_labels=5)
    with start(tmp_path) as llm:
        outputs = llm.encode(TEXTS, use_tqdm=False)
    for output in outputs:
        theirs = logits(model, output.prompt_token_ids).softmax(-1)
        torch.testing.assert_close(output.outputs.data, theirs, **CLOSE)


@pytest.mark.parametrize("family", ["Bert", "Roberta"])
def test_cross_encoders_read_both_texts_together(family: str, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    model = write_model(tmp_path, family, "ForSequenceClassification", num_labels=1)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    with start(tmp_path) as llm:
        outputs = llm.score("Where are you going?", TEXTS, use_tqdm=False)
        short = llm.score("Snow fell", TEXTS[2], truncate_prompt_tokens=12, use_tqdm=False)
    for output, text in zip(outputs, TEXTS, strict=True):
        pair = tokenizer.encode("Where are you going?", text)
        assert output.prompt_token_ids == pair.ids
        wanted = torch.sigmoid(logits(model, pair.ids, pair.type_ids))
        assert output.outputs.score == pytest.approx(float(wanted), abs=2e-5)
    tokenizer.enable_truncation(12)
    assert short[0].prompt_token_ids == tokenizer.encode("Snow fell", TEXTS[2]).ids


def test_a_reranker_of_two_tokens_weighs_yes_against_no(tmp_path: Path) -> None:
    model = write_model(tmp_path, "Qwen3", "ForCausalLM", tie_word_embeddings=False)
    tokens = ["a", "b"]
    overrides = {
        "architectures": ["Qwen3ForSequenceClassification"],
        "classifier_from_token": tokens,
        "is_original_qwen3_reranker": True,
    }
    with start(tmp_path, hf_overrides=overrides) as llm:
        ids = llm.get_tokenizer().convert_tokens_to_ids(tokens)
        outputs = llm.classify(TEXTS, use_tqdm=False)
        assert llm.score("a text", TEXTS[0], use_tqdm=False)[0].outputs.score < 1
    for output in outputs:
        last = logits(model, output.prompt_token_ids)[-1]
        wanted = last[ids].softmax(-1)[1]
        assert output.outputs.probs == pytest.approx([float(wanted)], abs=2e-5)


def test_bi_encoders_score_by_the_cosine(tmp_path: Path) -> None:
    model = write_model(tmp_path, "Bert")
    with start(tmp_path) as llm:
        outputs = llm.score(TEXTS[0], TEXTS, use_tqdm=False)
        ids = [llm.get_tokenizer().encode(text) for text in TEXTS]
        with pytest.raises(InvalidRequestError, match="2 texts cannot be scored against 3"):
            llm.score(TEXTS[:2], TEXTS, use_tqdm=False)
    vectors = [states(model, one)[0] for one in ids]
    for output, vector in zip(outputs, vectors, strict=True):
        wanted = torch.cosine_similarity(vectors[0], vector, dim=0)
        assert output.outputs.score == pytest.approx(float(wanted), abs=2e-5)


def test_late_interaction_sums_the_best_products(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = write_model(tmp_path, "Bert")
    matrix = torch.randn(16, 64) * 0.3
    weights = load_file(tmp_path / "model.safetensors")
    named = {f"bert.{name}": tensor for name, tensor in weights.items()}
    save_file(named | {"linear.weight": matrix}, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["HF_ColBERT"]}))
    with start(tmp_path) as llm:
        outputs = llm.score(TEXTS[0], TEXTS, use_tqdm=False)
        ids = [llm.get_tokenizer().encode(text) for text in TEXTS]
        with pytest.raises(ValueError, match="this model serves token_embed only"):
            llm.embed("x", use_tqdm=False)
    rows = [unit(states(model, one) @ matrix.T) for one in ids]
    for output, row in zip(outputs, rows, strict=True):
        wanted = (rows[0] @ row.T).max(dim=1).values.sum()
        assert output.outputs.score == pytest.approx(float(wanted), abs=1e-4)


def write_rewards(folder: Path, architecture: str, labels: int) -> Any:
    """A Qwen2 with a head of two products; what it gives for each token [T, labels]."""
    from safetensors.torch import load_file, save_file

    model = write_model(folder, "Qwen2", "Model")
    first, second = torch.randn(64, 64) * 0.2, torch.randn(labels, 64) * 0.3
    head = {"score.0.weight": first, "score.0.bias": torch.randn(64)}
    head |= {"score.2.weight": second, "score.2.bias": torch.randn(labels)}
    weights = load_file(folder / "model.safetensors")
    named = {f"model.{name}": tensor for name, tensor in weights.items()}
    save_file(named | head, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["architectures"] = [architecture]
    (folder / "config.json").write_text(json.dumps(config))

    def rewards(ids: list[int]) -> torch.Tensor:
        hidden = torch.relu(states(model, ids) @ first.T + head["score.0.bias"])
        return hidden @ second.T + head["score.2.bias"]

    return rewards


def test_process_rewards_stand_at_the_tags(tmp_path: Path) -> None:
    rewards = write_rewards(tmp_path, "Qwen2ForProcessRewardModel", 2)
    ids = [5, 6, 99, 8, 99, 7]
    with start(tmp_path, pooler_config={"step_tag_id": 99}) as llm:
        found = data(llm.reward([ids], use_tqdm=False))[0]
        good = data(llm.encode([ids], PoolingParams(returned_token_ids=[1]), use_tqdm=False))[0]
    wanted = rewards(ids).softmax(-1)[[2, 4]]
    torch.testing.assert_close(found, wanted, **CLOSE)
    torch.testing.assert_close(good, wanted[:, 1:], **CLOSE)


def test_rewards_of_qwen2_stand_at_each_token(tmp_path: Path) -> None:
    rewards = write_rewards(tmp_path, "Qwen2ForRewardModel", 1)
    prompts = [prompt_ids(length, length) for length in (3, 40)]
    with start(tmp_path) as llm:
        for ids, found in zip(prompts, data(llm.reward(prompts, use_tqdm=False)), strict=True):
            torch.testing.assert_close(found, rewards(ids), **CLOSE)


def test_rewards_of_internlm2_stand_at_each_token(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file
    from transformers import AutoModel

    config = CASES["internlm2"].config
    harness.write_checkpoint(tmp_path, config)
    weights = load_file(tmp_path / "model.safetensors")
    head = torch.randn(1, config["hidden_size"]) * 0.2
    del weights["output.weight"]
    save_file(weights | {"v_head.weight": head}, tmp_path / "model.safetensors")
    changed = config | {"architectures": ["InternLM2ForRewardModel"]}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    model = AutoModel.from_pretrained(tmp_path / harness.REFERENCE, dtype=torch.float32)
    ids = list(range(3, 33))
    with start(tmp_path, skip_tokenizer_init=True) as llm:
        found = data(llm.encode([ids], use_tqdm=False))[0]
    torch.testing.assert_close(found, states(model, ids) @ head.T, atol=1e-4, rtol=1e-4)


def test_matryoshka_cuts_and_norms_again(tmp_path: Path) -> None:
    model = write_model(tmp_path, "Bert", matryoshka_dimensions=[16, 32])
    params = PoolingParams(dimensions=16)
    with start(tmp_path) as llm:
        output = llm.embed(TEXTS[0], pooling_params=params, use_tqdm=False)[0]
        with pytest.raises(InvalidRequestError, match=r"dimensions is 20; .* \[16, 32\]"):
            llm.embed("x", pooling_params=PoolingParams(dimensions=20), use_tqdm=False)
    wanted = unit(states(model, output.prompt_token_ids)[0][:16])
    torch.testing.assert_close(torch.tensor(output.outputs.embedding), wanted, **CLOSE)


def test_long_texts_are_the_weighted_mean_of_their_pieces(tmp_path: Path) -> None:
    model = write_model(tmp_path, "Bert")
    ids = prompt_ids(300, 1)
    config = {"pooling_type": "MEAN", "enable_chunked_processing": True, "max_embed_len": 500}
    with start(tmp_path, pooler_config=config) as llm:
        output = llm.embed([ids], use_tqdm=False)[0]
        with pytest.raises(InvalidRequestError, match="600"):
            llm.embed([prompt_ids(600, 2)], use_tqdm=False)
    pieces = [ids[at : at + 130] for at in range(0, 300, 130)]
    rows = torch.stack([unit(states(model, one).mean(0)) for one in pieces])
    weights = torch.tensor([float(len(one)) for one in pieces])[:, None]
    wanted = unit((rows * weights).sum(0) / 300)
    torch.testing.assert_close(torch.tensor(output.outputs.embedding), wanted, **CLOSE)
    assert output.prompt_token_ids == ids


def test_streams_of_requests_give_the_same(tmp_path: Path) -> None:
    write_model(tmp_path, "Bert")
    config = {"pooling_type": "MEAN", "enable_chunked_processing": True}
    prompts = [prompt_ids(length, length) for length in (300, 20, 130)]
    with start(tmp_path, pooler_config=config) as llm:
        wanted = [one.outputs.data.tolist() for one in llm.encode(prompts, use_tqdm=False)]
    args = EngineArgs(str(tmp_path), dtype="float32", threads=1, pooler_config=config)
    engine = AsyncLLM.from_settings(args.to_settings(), own_process=False)

    async def ask(prompt: list[int]) -> Any:
        async for output in engine.encode(prompt, None, "name"):
            assert output.finished and output.prompt_token_ids == prompt
            return output.outputs.data.tolist()

    async def ask_all() -> list[Any]:
        with pytest.raises(InvalidRequestError, match="does not generate text"):
            await anext(engine.generate([5], None, "text"))
        return await asyncio.gather(*map(ask, prompts))

    try:
        assert asyncio.run(ask_all()) == wanted
        assert engine.num_unfinished_requests == 0
    finally:
        engine.shutdown()


def test_what_cannot_be_is_refused_with_what_can(tmp_path: Path) -> None:
    write_model(tmp_path / "bert", "Bert")
    write_model(tmp_path / "text", "Llama", "ForCausalLM")
    text = str(tmp_path / "text")
    assert describe(text).pooling is None
    with pytest.raises(SettingsError, match="runner is generate"):
        describe(str(tmp_path / "bert"), pooling=PoolingWish(runner="generate"))
    with pytest.raises(ModelLoadError, match="no head that makes classes"):
        describe(text, pooling=PoolingWish(convert="classify"))
    for key, value in (
        ("pooling_type", "MAX"),
        ("colour", 1),
        ("dimensions", "x"),
        ("logit_sigma", 0),
    ):
        with pytest.raises(SettingsError, match=key):
            describe(text, pooling=PoolingWish(runner="pooling", config={key: value}))
    with start(tmp_path / "bert") as llm:
        with pytest.raises(ValueError, match="this model serves embed, token_embed only"):
            llm.classify("x", use_tqdm=False)
        with pytest.raises(ValueError, match="does not generate text"):
            llm.generate("x", use_tqdm=False)
        with pytest.raises(ValueError, match=r"prompt 1: .*131 prompt tokens"):
            llm.embed([[5], [5] * 131], use_tqdm=False)
        assert len(llm.embed([[5] * 130], use_tqdm=False)) == 1


def test_random_weights_pool_too(tmp_path: Path) -> None:
    write_model(tmp_path, "Bert", "ForSequenceClassification", num_labels=2)
    (tmp_path / "model.safetensors").unlink()
    with start(tmp_path, load_format="dummy") as llm:
        probs = llm.classify("a text", use_tqdm=False)[0].outputs.probs
    assert sum(probs) == pytest.approx(1.0)
