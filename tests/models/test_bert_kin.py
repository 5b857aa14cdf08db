"""Nomic's experts and Jina's model for code against their formulas in float64, which Transformers lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import gelu, layer_norm

from quire import LLM
from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from tests.checkpoints import prompt_ids
from tests.models.test_pooling_kinds import JINA, SLOPES, write_jina
from tests.pooling_checkpoints import unit, write_pair_tokenizer

CLOSE = {"atol": 2e-5, "rtol": 2e-5}
Weights = dict[str, torch.Tensor]
NOMIC = {
    "architectures": ["NomicBertModel"],
    "model_type": "nomic_bert",
    "activation_function": "gelu",
    "add_pooling_layer": False,
    "causal": False,
    "expert_choice_router": False,
    "ffn_div": 1,
    "layer_norm_epsilon": 1e-2,
    "max_trained_positions": 160,
    "mlp_fc1_bias": True,
    "mlp_fc2_bias": True,
    "moe_every_n_layers": 2,
    "moe_impl": "megablocks",
    "moe_normalize_expert_weights": False,
    "moe_top_k": 2,
    "n_embd": 48,
    "n_head": 4,
    "n_inner": 56,
    "n_layer": 4,
    "num_experts": 5,
    "num_shared_experts": 0,
    "pad_token_id": 1,
    "prenorm": False,
    "qkv_proj_bias": True,
    "rotary_emb_base": 100,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "type_vocab_size": 1,
    "use_rms_norm": None,
    "vocab_size": 512,
}


class Formulas:
    """Parts of an encoder in float64, by the names of a checkpoint's tensors."""

    def __init__(self, weights: Weights, eps: float) -> None:
        self.of, self._eps = {name: tensor.double() for name, tensor in weights.items()}, eps

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.of[f"{name}.weight"].T + self.of.get(f"{name}.bias", 0)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self.of[f"{name}.weight"], self.of[f"{name}.bias"]
        return layer_norm(x, x.shape[-1:], weight, bias, self._eps)

    def embedded(self, norm: str, ids: list[int]) -> torch.Tensor:
        words = self.of["embeddings.word_embeddings.weight"][ids]
        return self.norm(norm, words + self.of["embeddings.token_type_embeddings.weight"][0])


def mix(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, added: Any = 0) -> torch.Tensor:
    """Attention of all tokens to all: q, k and v [T, H, D], to [T, H * D]."""
    q, k, v = (one.transpose(0, 1) for one in (q, k, v))
    scores = q @ k.transpose(1, 2) / q.shape[-1] ** 0.5 + added
    return (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)


def turned(x: torch.Tensor, base: float) -> torch.Tensor:
    """Rotary positions of heads [T, H, D], in halves."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x)).double()[:, None] * base ** (-torch.arange(half).double() / half)
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    first, second = x[..., :half], x[..., half:]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def written(folder: Path, config: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> Weights:
    """A random checkpoint; norms are near one, so that nothing vanishes."""
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(7)
    weights = {
        name: torch.randn(shape, generator=generator) * 0.25 for name, shape in shapes.items()
    }
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    write_pair_tokenizer(folder)
    return weights


def both(name: str, rows: int, columns: int = 0) -> dict[str, tuple[int, ...]]:
    """A weight and a bias."""
    return {f"{name}.weight": (rows, columns) if columns else (rows,), f"{name}.bias": (rows,)}


def write_nomic(folder: Path, **changes: Any) -> Weights:
    """With the names of nomic-embed-text-v2-moe."""
    config = NOMIC | changes
    size, inner, experts = config["n_embd"], config["n_inner"], config["num_experts"]
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (512, size)}
    shapes["embeddings.token_type_embeddings.weight"] = (1, size)
    shapes |= both("emb_ln", size)
    for layer in range(config["n_layer"]):
        below = f"encoder.layers.{layer}"
        shapes |= both(f"{below}.attn.Wqkv", 3 * size, size)
        shapes |= both(f"{below}.attn.out_proj", size, size)
        shapes |= both(f"{below}.norm1", size) | both(f"{below}.norm2", size)
        if layer % config["moe_every_n_layers"] == 1:
            shapes[f"{below}.mlp.router.layer.weight"] = (experts, size)
            shapes[f"{below}.mlp.experts.mlp.w1"] = (experts * inner, size)
            shapes[f"{below}.mlp.experts.mlp.w2"] = (experts * inner, size)
            shapes[f"{below}.mlp.experts.bias"] = (size,)
        else:
            shapes |= both(f"{below}.mlp.fc1", inner, size) | both(f"{below}.mlp.fc2", size, inner)
    return written(folder, config, shapes)


def nomic_states(weights: Weights, config: dict[str, Any], ids: list[int]) -> torch.Tensor:
    """Hidden states [T, C] by the formulas of arXiv 2502.07972."""
    it = Formulas(weights, config["layer_norm_epsilon"])
    x = it.embedded("emb_ln", ids)
    for layer in range(config["n_layer"]):
        below = f"encoder.layers.{layer}"
        joined = it.linear(f"{below}.attn.Wqkv", x).view(len(ids), 3, config["n_head"], -1)
        q, k, v = joined.unbind(1)
        base = config["rotary_emb_base"]
        mixed = it.linear(f"{below}.attn.out_proj", mix(turned(q, base), turned(k, base), v))
        x = it.norm(f"{below}.norm1", mixed + x)
        if layer % config["moe_every_n_layers"] == 1:
            made = expert_sums(it, f"{below}.mlp", x, config)
        else:
            made = it.linear(f"{below}.mlp.fc2", gelu(it.linear(f"{below}.mlp.fc1", x)))
        x = it.norm(f"{below}.norm2", made + x)
    return x.float()


def expert_sums(it: Formulas, below: str, x: torch.Tensor, config: dict[str, Any]) -> torch.Tensor:
    shares = it.linear(f"{below}.router.layer", x).softmax(-1)
    shape = (config["num_experts"], config["n_inner"], config["n_embd"])
    w1, w2 = (it.of[f"{below}.experts.mlp.{name}"].view(shape) for name in ("w1", "w2"))
    made = torch.einsum("tef,efc->tec", gelu(torch.einsum("tc,efc->tef", x, w1)), w2)
    least = shares.topk(config["moe_top_k"]).values[:, -1:]
    kept = torch.where(shares >= least, shares, 0.0)
    return torch.einsum("te,tec->tc", kept, made) + it.of[f"{below}.experts.bias"]


def write_code(folder: Path) -> Weights:
    """With the names of jina-embeddings-v2-base-code."""
    size, inner = JINA["hidden_size"], JINA["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {"embeddings.word_embeddings.weight": (512, size)}
    shapes["embeddings.token_type_embeddings.weight"] = (2, size)
    shapes |= both("embeddings.LayerNorm", size)
    for layer in range(JINA["num_hidden_layers"]):
        below = f"encoder.layer.{layer}"
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= both(f"{below}.attention.{name}", size, size)
        for name in ("self.layer_norm_q", "self.layer_norm_k", "output.LayerNorm"):
            shapes |= both(f"{below}.attention.{name}", size)
        shapes |= both(f"{below}.layer_norm_1", size) | both(f"{below}.layer_norm_2", size)
        shapes[f"{below}.mlp.up_gated_layer.weight"] = (2 * inner, size)
        shapes |= both(f"{below}.mlp.down_layer", size, inner)
    return written(folder, JINA, shapes)


def code_states(weights: Weights, ids: list[int]) -> torch.Tensor:
    """Hidden states [T, C] by the formulas of jina-bert-v2-qk-post-norm."""
    it = Formulas(weights, JINA["layer_norm_eps"])
    x = it.embedded("embeddings.LayerNorm", ids)
    places = torch.arange(len(ids))
    fall = torch.tensor(SLOPES).double().view(-1, 1, 1) * (places - places[:, None]).abs()
    for layer in range(JINA["num_hidden_layers"]):
        at = f"encoder.layer.{layer}"
        inner = f"{at}.attention.self"
        q, k, v = (it.linear(f"{inner}.{name}", x) for name in ("query", "key", "value"))
        q, k = it.norm(f"{inner}.layer_norm_q", q), it.norm(f"{inner}.layer_norm_k", k)
        heads = (one.view(len(ids), len(SLOPES), -1) for one in (q, k, v))
        out = it.linear(f"{at}.attention.output.dense", mix(*heads, -fall))
        once = it.norm(f"{at}.attention.output.LayerNorm", out + x)
        x = it.norm(f"{at}.layer_norm_1", x + once)
        up, gate = it.linear(f"{at}.mlp.up_gated_layer", x).chunk(2, dim=-1)
        made = it.linear(f"{at}.mlp.down_layer", up * gelu(gate))
        x = it.norm(f"{at}.layer_norm_2", made + x)
    return x.float()


def found(folder: Path, prompts: list[list[int]]) -> list[torch.Tensor]:
    """The states of all tokens in one batch, and that they have the same bits alone."""
    options: dict[str, Any] = {"dtype": "float32", "threads": 1, "use_tqdm_on_load": False}
    with LLM(str(folder), runner="pooling", max_num_seqs=16, **options) as llm:
        made = llm.encode(prompts, pooling_task="token_embed", use_tqdm=False)
        alone = [
            llm.encode([ids], pooling_task="token_embed", use_tqdm=False)[0] for ids in prompts
        ]
    for one, other in zip(made, alone, strict=True):
        assert torch.equal(one.outputs.data, other.outputs.data)
    return [one.outputs.data for one in made]


@pytest.mark.parametrize(
    "changes", [{}, {"moe_top_k": 1, "moe_every_n_layers": 3}, {"moe_every_n_layers": 5}]
)
def test_nomic_s_experts_share_one_bias(changes: dict[str, Any], tmp_path: Path) -> None:
    weights = write_nomic(tmp_path, **changes)
    prompts = [prompt_ids(length, length) for length in (1, 7, 33, 150)]
    for ids, states in zip(prompts, found(tmp_path, prompts), strict=True):
        wanted = unit(nomic_states(weights, NOMIC | changes, ids))
        torch.testing.assert_close(states, wanted, **CLOSE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("expert_choice_router", True),
        ("moe_normalize_expert_weights", True),
        ("num_shared_experts", 1),
        ("ffn_div", 2),
        ("mlp_fc1_bias", False),
        ("use_rms_norm", True),
        ("rotary_emb_interleaved", True),
        ("rotary_emb_fraction", 0.5),
        ("rotary_emb_scale_base", 512),
        ("activation_function", "swiglu"),
    ],
)
def test_another_form_of_nomic_s_experts_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    write_nomic(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(NOMIC | {key: value}))
    with pytest.raises(ModelLoadError, match=key if key != "activation_function" else "mlp_fc1"):
        describe(str(tmp_path))


def test_jina_s_model_for_code_norms_queries_and_keys(tmp_path: Path) -> None:
    weights = write_code(tmp_path)
    prompts = [prompt_ids(length, length) for length in (1, 7, 33, 150)]
    for ids, states in zip(prompts, found(tmp_path, prompts), strict=True):
        torch.testing.assert_close(states, unit(code_states(weights, ids)), **CLOSE)


def test_norms_of_queries_and_keys_alone(tmp_path: Path) -> None:
    """As in the German, Spanish and Chinese models: told by the tensors, each for itself."""
    from safetensors.torch import load_file, save_file

    write_jina(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    for layer in range(JINA["num_hidden_layers"]):
        for which in "qk":
            for kind, value in (("weight", 1.5), ("bias", 0.25)):
                name = f"encoder.layer.{layer}.attention.self.layer_norm_{which}.{kind}"
                weights[name] = torch.full((JINA["hidden_size"],), value)
    save_file(weights, tmp_path / "model.safetensors")
    spec = describe(str(tmp_path)).spec
    assert {layer.mixer.qk_norm for layer in spec.layers} == {"layer_full"}
    assert {layer.placement for layer in spec.layers} == {"after_sums"}
