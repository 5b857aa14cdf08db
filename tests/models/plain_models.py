"""Architectures that Transformers lacks, in plain torch: shapes of their tensors, and what they compute.

Written from the public descriptions and from nothing of ours; one sequence, no cache, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear, silu

Config = dict[str, Any]
Tensors = dict[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class PlainModel:
    """`shapes` of a file's tensors by name; `logits` [T, V] float32 of the tensors and ids [T]."""

    shapes: Callable[[Config], Shapes]
    logits: Callable[[Tensors, Config, torch.Tensor], torch.Tensor]


def rms(x: torch.Tensor, weight: torch.Tensor | float, eps: float) -> torch.Tensor:
    """x over the root of the mean of its squares, times a weight."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight


def halves_turned(x: torch.Tensor, theta: float) -> torch.Tensor:
    """Heads [T, H, D] turned by their positions, number i with number i + D / 2."""
    count, _, size = x.shape
    rates = theta ** (-torch.arange(0, size, 2, dtype=torch.float64) / size)
    angles = torch.arange(count, dtype=torch.float64)[:, None] * rates
    cos, sin = angles.cos().float()[:, None], angles.sin().float()[:, None]
    first, second = x[..., : size // 2], x[..., size // 2 :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attended(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    *,
    scale: float | None = None,
    bias: torch.Tensor | None = None,
    cap: float = 0.0,
    window: int | None = None,
) -> torch.Tensor:
    """[T, H * D]: each of the heads q [T, H, D] sees tokens up to its own in k and v [T, K, D].

    bias [H, T, T] is added to scores, which `cap` bounds before; `window` tokens are seen at most.
    """
    k, v = (it.repeat_interleave(q.shape[1] // it.shape[1], dim=1) for it in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if cap:
        scores = cap * torch.tanh(scores / cap)
    if bias is not None:
        scores = scores + bias
    ones = torch.ones(scores.shape[-2:], dtype=torch.bool)
    seen = ones.tril() if window is None else ones.tril() & ones.triu(1 - window)
    weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khd->qhd", weights, v).flatten(1)


def embedded_shapes(config: Config) -> Shapes:
    """Embedding, final norm and head in Llama's names."""
    size = (config["vocab_size"], config["hidden_size"])
    shapes: Shapes = {"model.embed_tokens.weight": size, "model.norm.weight": size[1:]}
    return shapes if config.get("tie_word_embeddings") else shapes | {"lm_head.weight": size}


def llama_shapes(config: Config) -> Shapes:
    """Llama's names, without biases."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads, size = config["num_attention_heads"], config.get("head_dim")
    size = size or width // heads
    queries, keys = heads * size, config["num_key_value_heads"] * size
    shapes = embedded_shapes(config)
    for index in range(config["num_hidden_layers"]):
        shapes |= {
            f"model.layers.{index}.{name}.weight": shape
            for name, shape in (
                ("input_layernorm", (width,)),
                ("self_attn.q_proj", (queries, width)),
                ("self_attn.k_proj", (keys, width)),
                ("self_attn.v_proj", (keys, width)),
                ("self_attn.o_proj", (width, queries)),
                ("post_attention_layernorm", (width,)),
                ("mlp.gate_proj", (inner, width)),
                ("mlp.up_proj", (inner, width)),
                ("mlp.down_proj", (width, inner)),
            )
        }
    return shapes


def llama_heads(x: torch.Tensor, tensors: Tensors, at: str, config: Config) -> list[torch.Tensor]:
    """q, k and v [T, heads, D] of a layer `at`, before they turn."""
    found = []
    for name, key in (("q", "attention"), ("k", "key_value"), ("v", "key_value")):
        weight, bias = (
            tensors.get(f"{at}.self_attn.{name}_proj.{kind}") for kind in ("weight", "bias")
        )
        assert weight is not None
        found.append(linear(x, weight, bias).unflatten(-1, (config[f"num_{key}_heads"], -1)))
    return found


def llama_part(x: torch.Tensor, tensors: Tensors, at: str) -> torch.Tensor:
    """Gate and up, gated, and down, below `at`."""
    gate, up, down = (tensors[f"{at}.{name}_proj.weight"] for name in ("gate", "up", "down"))
    return linear(silu(linear(x, gate)) * linear(x, up), down)


def head(x: torch.Tensor, tensors: Tensors, config: Config) -> torch.Tensor:
    """The final norm, and the output matrix."""
    weight = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    return linear(rms(x, tensors["model.norm.weight"], config["rms_norm_eps"]), weight)


def solar(tensors: Tensors, config: Config, ids: torch.Tensor) -> torch.Tensor:
    """Llama; before some layers the stream is blended with one that came into an earlier layer."""
    eps, share = config["rms_norm_eps"], config["bskcn_tv"][1]
    x = tensors["model.embed_tokens.weight"][ids]
    kept = {}
    for index in range(config["num_hidden_layers"]):
        at, before = f"model.layers.{index}", x
        for keeping in ("1", "2"):
            if index in config[f"bskcn_{keeping}"]:
                kept[keeping] = before
        for blending, keeping in (("3", "1"), ("4", "2")):
            if index in config[f"bskcn_{blending}"]:
                x = kept[keeping] * share + x * (1 - share)
        y = rms(x, tensors[f"{at}.input_layernorm.weight"], eps)
        q, k, v = llama_heads(y, tensors, at, config)
        q, k = (halves_turned(it, config["rope_theta"]) for it in (q, k))
        x = x + linear(attended(q, k, v), tensors[f"{at}.self_attn.o_proj.weight"])
        y = rms(x, tensors[f"{at}.post_attention_layernorm.weight"], eps)
        x = x + llama_part(y, tensors, f"{at}.mlp")
    return head(x, tensors, config)


PLAIN_MODELS: dict[str, PlainModel] = {"SolarForCausalLM": PlainModel(llama_shapes, solar)}
