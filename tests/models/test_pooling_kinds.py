"""Embedders that Transformers lacks, against its parts or against plain formulas: GritLM, Jina v2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from quire import LLM
from quire.models.registry import describe
from quire.protocol.errors import InvalidRequestError, ModelLoadError
from tests.checkpoints import prompt_ids
from tests.pooling_checkpoints import unit, write_model, write_pair_tokenizer

CLOSE = {"atol": 2e-5, "rtol": 2e-5}
NAMES = ("<s>", "</s>", "\u2581<", "<", "|", ">", "<0x0A>", "user", "embed", "word")
BEGIN, _, FIRST, INNER, BAR, END, LINE, USER, EMBED, WORD = range(len(NAMES))
BARE = [BEGIN, FIRST, BAR, EMBED, BAR, END, LINE]
OPENING = [BEGIN, FIRST, BAR, USER, BAR, END, LINE]
CLOSING = [LINE, INNER, BAR, EMBED, BAR, END, LINE]


def start(folder: Path, **settings: Any) -> LLM:
    options = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False, "max_num_seqs": 16}
    return LLM(str(folder), runner="pooling", **options | settings)


def write_grit(folder: Path, names: tuple[str, ...] = NAMES) -> Any:
    from tokenizers import Tokenizer, models

    model = write_model(folder, "Mistral", "ForCausalLM")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["GritLM"]}))
    vocab = {name: place for place, name in enumerate(names)}
    Tokenizer(models.WordLevel(vocab, unk_token=names[-1])).save(str(folder / "tokenizer.json"))
    return model.model


def test_gritlm_s_mean_leaves_the_instruction_out(tmp_path: Path) -> None:
    model = write_grit(tmp_path)
    text = prompt_ids(30, 1)
    prompts = {
        (*BARE, *text): len(BARE),
        (*OPENING, *prompt_ids(9, 2), *CLOSING, *text): len(OPENING) + 9 + len(CLOSING),
        # An instruction may hold the other mark, and a text that lacks both counts but for its first token.
        (*OPENING, FIRST, BAR, EMBED, BAR, END, LINE, WORD, *CLOSING, *text): 7 + 7 + 7,
        (BEGIN, *text): 1,
        tuple(text): 0,
    }
    with start(tmp_path) as llm:
        found = llm.embed([list(ids) for ids in prompts], use_tqdm=False)
        alone = [llm.embed([list(ids)], use_tqdm=False)[0] for ids in prompts]
        with pytest.raises(InvalidRequestError, match="all 7 tokens are the instruction's"):
            llm.embed([BARE], use_tqdm=False)
    assert [one.outputs.embedding for one in found] == [one.outputs.embedding for one in alone]
    for one, (ids, skipped) in zip(found, prompts.items(), strict=True):
        everything = torch.zeros(1, 1, len(ids), len(ids))
        with torch.inference_mode():
            states = model(torch.tensor([ids]), attention_mask=everything).last_hidden_state[0]
        wanted = unit(states[skipped:].mean(0))
        torch.testing.assert_close(torch.tensor(one.outputs.embedding), wanted, **CLOSE)


def test_gritlm_writes_too_and_needs_its_marks(tmp_path: Path) -> None:
    write_grit(tmp_path / "whole")
    assert describe(str(tmp_path / "whole")).pooling is None
    write_grit(tmp_path / "poor", names=tuple(name for name in NAMES if name != "embed"))
    with pytest.raises(ModelLoadError, match="GritLM needs 'embed'"):
        start(tmp_path / "poor")


JINA = {
    "architectures": ["JinaBertForMaskedLM"],
    "model_type": "bert",
    "vocab_size": 512,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "intermediate_size": 80,
    "max_position_embeddings": 200,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-3,
    "position_embedding_type": "alibi",
    "feed_forward_type": "geglu",
    "hidden_act": "gelu",
    "emb_pooler": "mean",
    "attn_implementation": None,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 0,
}
SLOPES = (2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3)
"""Of six heads: those of four, then every other one of eight."""


def write_jina(folder: Path) -> dict[str, torch.Tensor]:
    """A random checkpoint with the names of jina-embeddings-v2-base-en; its weights."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    size, width = JINA["hidden_size"], JINA["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (512, size)}
    shapes["embeddings.token_type_embeddings.weight"] = (2, size)
    for kind in ("weight", "bias"):
        shapes[f"embeddings.LayerNorm.{kind}"] = (size,)
    for layer in range(JINA["num_hidden_layers"]):
        below = f"encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{below}.attention.{name}.weight"] = (size, size)
            shapes[f"{below}.attention.{name}.bias"] = (size,)
        for kind in ("weight", "bias"):
            shapes[f"{below}.attention.output.LayerNorm.{kind}"] = (size,)
            shapes[f"{below}.mlp.layernorm.{kind}"] = (size,)
        shapes[f"{below}.mlp.gated_layers.weight"] = (2 * width, size)
        shapes[f"{below}.mlp.wo.weight"], shapes[f"{below}.mlp.wo.bias"] = (size, width), (size,)
    generator = torch.Generator().manual_seed(5)
    weights = {
        name: torch.randn(shape, generator=generator) * 0.2 for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(JINA))
    write_pair_tokenizer(folder)
    return weights


def jina_states(weights: dict[str, torch.Tensor], ids: list[int]) -> torch.Tensor:
    """Hidden states [T, C] by the formulas of arXiv 2310.19923, in float64."""
    of = {name: tensor.double() for name, tensor in weights.items()}

    def linear(name: str, x: torch.Tensor) -> torch.Tensor:
        bias = of.get(f"{name}.bias")
        return x @ of[f"{name}.weight"].T + (0 if bias is None else bias)

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        return layer_norm(x, x.shape[-1:], of[f"{name}.weight"], of[f"{name}.bias"], 1e-3)

    x = of["embeddings.word_embeddings.weight"][ids]
    x = norm("embeddings.LayerNorm", x + of["embeddings.token_type_embeddings.weight"][0])
    heads, places = len(SLOPES), torch.arange(len(ids))
    fall = torch.tensor(SLOPES).double().view(-1, 1, 1) * (places - places[:, None]).abs()
    for layer in range(JINA["num_hidden_layers"]):
        below = f"encoder.layer.{layer}"
        names = (f"{below}.attention.self.{name}" for name in ("query", "key", "value"))
        q, k, v = (linear(name, x).view(len(ids), heads, -1).transpose(0, 1) for name in names)
        scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 - fall
        mixed = (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(ids), -1)
        out = linear(f"{below}.attention.output.dense", mixed)
        x = norm(f"{below}.attention.output.LayerNorm", out + x)
        gate, up = linear(f"{below}.mlp.gated_layers", x).chunk(2, dim=-1)
        x = norm(f"{below}.mlp.layernorm", linear(f"{below}.mlp.wo", gelu(gate) * up) + x)
    return x.float()


def test_jina_v2_looks_both_ways_with_falling_scores(tmp_path: Path) -> None:
    weights = write_jina(tmp_path)
    prompts = [prompt_ids(length, length) for length in (1, 7, 33, 150)]
    with start(tmp_path) as llm:
        found = llm.embed(prompts, use_tqdm=False)
        alone = [llm.embed([ids], use_tqdm=False)[0] for ids in prompts]
        tokens = llm.encode(prompts[2:3], pooling_task="token_embed", use_tqdm=False)[0]
    assert [one.outputs.embedding for one in found] == [one.outputs.embedding for one in alone]
    for one, ids in zip(found, prompts, strict=True):
        wanted = unit(jina_states(weights, ids).mean(0))
        torch.testing.assert_close(torch.tensor(one.outputs.embedding), wanted, **CLOSE)
    torch.testing.assert_close(tokens.outputs.data, unit(jina_states(weights, prompts[2])), **CLOSE)


@pytest.mark.parametrize(
    ("key", "value"), [("position_embedding_type", "absolute"), ("feed_forward_type", "original")]
)
def test_another_form_of_jina_bert_is_refused(key: str, value: str, tmp_path: Path) -> None:
    write_jina(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(JINA | {key: value}))
    with pytest.raises(ModelLoadError, match=key):
        describe(str(tmp_path))
