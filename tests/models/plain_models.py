"""Architectures that Transformers lacks, in plain torch: shapes of their tensors, and what they compute.

Written from the public descriptions and from nothing of ours; one sequence, no cache, float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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


def jais_shapes(config: Config) -> Shapes:
    """GPT-2's names and [in, out] matrices, with a second matrix beside `c_fc`."""
    width, inner = config["n_embd"], config["n_inner"]
    shapes: Shapes = {"transformer.wte.weight": (config["vocab_size"], width)}
    for index in range(config["n_layer"]):
        at = f"transformer.h.{index}"
        for name in ("ln_1", "ln_2"):
            shapes |= {f"{at}.{name}.{kind}": (width,) for kind in ("weight", "bias")}
        for name, rows, columns in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, inner),
            ("mlp.c_fc2", width, inner),
            ("mlp.c_proj", inner, width),
        ):
            shapes |= {f"{at}.{name}.weight": (rows, columns), f"{at}.{name}.bias": (columns,)}
    return shapes | {f"transformer.ln_f.{kind}": (width,) for kind in ("weight", "bias")}


def slopes(heads: int) -> list[float]:
    """2^(-8/n), its square and so on; where n is no power of two, those of the one below, then every other of 2n."""
    whole = 2 ** (heads.bit_length() - 1)
    found = [2 ** (-8 * (i + 1) / whole) for i in range(whole)]
    return (found + [2 ** (-4 * (2 * i + 1) / whole) for i in range(heads - whole)])[:heads]


def jais(tensors: Tensors, config: Config, ids: torch.Tensor) -> torch.Tensor:
    """GPT-2 with SwiGLU and slopes; factors of embedding, scores and logits."""
    eps, heads, width = config["layer_norm_epsilon"], config["n_head"], config["n_embd"]
    new = "mup_width_scale" in config

    def linear_at(x: torch.Tensor, name: str) -> torch.Tensor:
        return x @ tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        parts = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        return torch.nn.functional.layer_norm(x, (width,), *parts, eps)

    table = tensors["transformer.wte.weight"]
    x = table[ids] * config["mup_embeddings_scale" if new else "embeddings_scale"]
    places = torch.arange(len(ids))
    distances = (places[None] - places[:, None]).float()
    bias = torch.tensor(slopes(heads))[:, None, None] * distances
    by_size = config["mup_scale_qk_dot_by_d" if new else "scale_qk_dot_by_d"]
    scale = (width // heads) ** (-1.0 if by_size else -0.5)
    for index in range(config["n_layer"]):
        at = f"transformer.h.{index}"
        parts = linear_at(norm(x, f"{at}.ln_1"), f"{at}.attn.c_attn").split(width, dim=-1)
        q, k, v = (it.unflatten(-1, (heads, -1)) for it in parts)
        x = x + linear_at(attended(q, k, v, scale=scale, bias=bias), f"{at}.attn.c_proj")
        y = norm(x, f"{at}.ln_2")
        inner = linear_at(y, f"{at}.mlp.c_fc") * silu(linear_at(y, f"{at}.mlp.c_fc2"))
        x = x + linear_at(inner, f"{at}.mlp.c_proj")
    factor = (
        config["mup_output_alpha"] * config["mup_width_scale"] if new else config["width_scale"]
    )
    return linear(norm(x, "transformer.ln_f"), table) * factor


def grok_shapes(config: Config, kind: str) -> Shapes:
    """Norms whose weights are called `kind`, four a layer, and experts of three matrices."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    keys = config["num_key_value_heads"] * width // heads
    shapes = embedded_shapes(config)
    shapes[f"model.norm.{kind}"] = shapes.pop("model.norm.weight")
    for index in range(config["num_hidden_layers"]):
        at, block = f"model.layers.{index}", f"model.layers.{index}.moe_block"
        places = ("pre_attn", "post_attn", "pre_moe", "post_moe")
        shapes |= {f"{at}.{place}_norm.{kind}": (width,) for place in places}
        for name, rows in (("q", width), ("k", keys), ("v", keys), ("o", width)):
            shapes[f"{at}.attn.{name}_proj.weight"] = (rows, width)
        shapes[f"{block}.gate.weight"] = (config["num_experts"], width)
        for expert in range(config["num_experts"]):
            for name in ("linear", "linear_v"):
                shapes[f"{block}.experts.{expert}.{name}.weight"] = (inner, width)
            shapes[f"{block}.experts.{expert}.linear_1.weight"] = (width, inner)
    return shapes


def grok(tensors: Tensors, config: Config, ids: torch.Tensor, kind: str) -> torch.Tensor:
    """Norms before and after each part; scores times a number and capped; shares of all experts, the best alone."""
    eps, count = config["rms_norm_eps"], config["num_experts_per_tok"]

    def at(x: torch.Tensor, name: str) -> torch.Tensor:
        return linear(x, tensors[f"{name}.weight"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return rms(x, tensors[f"{name}.{kind}"], eps)

    x = tensors["model.embed_tokens.weight"][ids] * config["embedding_multiplier_scale"]
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        y = norm(x, f"{layer}.pre_attn_norm")
        size = config["hidden_size"] // config["num_attention_heads"]
        q, k, v = (at(y, f"{layer}.attn.{name}_proj").unflatten(-1, (-1, size)) for name in "qkv")
        q, k = (halves_turned(it, config.get("rope_theta", 10_000.0)) for it in (q, k))
        scale, cap = config["attn_output_multiplier"], config["max_attn_value"]
        mixed = at(attended(q, k, v, scale=scale, cap=cap), f"{layer}.attn.o_proj")
        x = x + norm(mixed, f"{layer}.post_attn_norm")
        y = norm(x, f"{layer}.pre_moe_norm")
        shares, chosen = at(y, f"{layer}.moe_block.gate").softmax(-1).topk(count)
        made = torch.zeros_like(y)
        for expert in range(config["num_experts"]):
            name = f"{layer}.moe_block.experts.{expert}"
            gate = torch.nn.functional.gelu(at(y, f"{name}.linear"), approximate="tanh")
            share = (shares * (chosen == expert)).sum(-1, keepdim=True)
            made = made + share * at(gate * at(y, f"{name}.linear_v"), f"{name}.linear_1")
        x = x + norm(made, f"{layer}.post_moe_norm")
    table = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    return linear(norm(x, "model.norm"), table) * config["output_multiplier_scale"]


def pangu_shapes(config: Config) -> Shapes:
    """Latent attention, four norms a layer, and experts behind the dense layers, in DeepSeek's names."""
    width, heads = config["hidden_size"], config["num_attention_heads"]
    ranks = config["attention_q_lora_dim"], config["attention_kv_lora_dim"]
    nope, turned, values = (config[f"attention_{name}_dim"] for name in ("qk", "qk_rope", "v"))
    shapes = embedded_shapes(config)

    def part(at: str, inner: int) -> Shapes:
        sizes = {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}
        return {f"{at}.{name}_proj.weight": size for name, size in sizes.items()}

    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}"
        norms = ["input_layernorm", "post_attention_layernorm"]
        norms += ["pre_mlp_layernorm", "post_mlp_layernorm"] * config["sandwich_norm"]
        shapes |= {f"{at}.{name}.weight": (width,) for name in norms}
        shapes |= {
            f"{at}.self_attn.{name}.weight": size
            for name, size in (
                ("q_a_proj", (ranks[0], width)),
                ("q_a_layernorm", ranks[:1]),
                ("q_b_proj", (heads * (nope + turned), ranks[0])),
                ("kv_a_proj_with_mqa", (ranks[1] + turned, width)),
                ("kv_a_layernorm", ranks[1:]),
                ("kv_b_proj", (heads * (nope + values), ranks[1])),
                ("o_proj", (width, heads * values)),
            )
        }
        if index < config["num_dense_layers"]:
            shapes |= part(f"{at}.mlp", config["intermediate_size"])
            continue
        inner, count = config["moe_intermediate_size"], config["num_routed_experts"]
        shapes[f"{at}.mlp.gate.weight"] = (count, width)
        shapes |= part(f"{at}.mlp.shared_experts", inner * config["num_shared_experts"])
        for expert in range(count):
            shapes |= part(f"{at}.mlp.experts.{expert}", inner)
    return shapes


def neighbours_turned(x: torch.Tensor, theta: float) -> torch.Tensor:
    """The same, number 2 i with number 2 i + 1; the first of all pairs stand before the second ones then."""
    return halves_turned(x.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2), theta)


def pangu_part(y: torch.Tensor, tensors: Tensors, at: str, config: Config) -> torch.Tensor:
    """A dense part; or experts, weighed by sigmoids that are made to sum up, beside shared ones."""
    if f"{at}.gate.weight" not in tensors:
        return llama_part(y, tensors, at)
    shares, chosen = (
        linear(y, tensors[f"{at}.gate.weight"]).sigmoid().topk(config["num_experts_per_tok"])
    )
    if config["norm_topk_prob"]:
        shares = shares / shares.sum(-1, keepdim=True)
    made = llama_part(y, tensors, f"{at}.shared_experts")
    for expert in range(config["num_routed_experts"]):
        share = (shares * (chosen == expert)).sum(-1, keepdim=True) * config[
            "routed_scaling_factor"
        ]
        made = made + share * llama_part(y, tensors, f"{at}.experts.{expert}")
    return made


def pangu(tensors: Tensors, config: Config, ids: torch.Tensor) -> torch.Tensor:
    """Attention over a latent; norms around the parts, or before them."""
    eps, heads, rank = (
        config[key] for key in ("rms_norm_eps", "num_attention_heads", "attention_kv_lora_dim")
    )
    nope, turned, values = (config[f"attention_{name}_dim"] for name in ("qk", "qk_rope", "v"))
    x = tensors["model.embed_tokens.weight"][ids]
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"

        def at(y: torch.Tensor, name: str, layer: str = layer) -> torch.Tensor:
            return linear(y, tensors[f"{layer}.self_attn.{name}.weight"])

        def norm(y: torch.Tensor, name: str, eps: float = eps, layer: str = layer) -> torch.Tensor:
            return rms(y, tensors[f"{layer}.{name}.weight"], eps)

        y = norm(x, "input_layernorm")
        queries = norm(at(y, "q_a_proj"), "self_attn.q_a_layernorm", 1e-6)
        q = at(queries, "q_b_proj").unflatten(-1, (heads, -1))
        latent, key = at(y, "kv_a_proj_with_mqa").split((rank, turned), dim=-1)
        both = at(norm(latent, "self_attn.kv_a_layernorm", 1e-6), "kv_b_proj")
        k, v = both.unflatten(-1, (heads, -1)).split((nope, values), dim=-1)
        key = neighbours_turned(key[:, None], config["rope_theta"]).expand(-1, heads, -1)
        q = torch.cat(
            (q[..., :nope], neighbours_turned(q[..., nope:], config["rope_theta"])), dim=-1
        )
        mixed = at(attended(q, torch.cat((k, key), dim=-1), v), "o_proj")
        if config["sandwich_norm"]:
            x = x + norm(mixed, "post_attention_layernorm")
            made = pangu_part(norm(x, "pre_mlp_layernorm"), tensors, f"{layer}.mlp", config)
            x = x + norm(made, "post_mlp_layernorm")
        else:
            x = x + mixed
            y = norm(x, "post_attention_layernorm")
            x = x + pangu_part(y, tensors, f"{layer}.mlp", config)
    return head(x, tensors, config)


PLAIN_MODELS: dict[str, PlainModel] = {
    "Grok1ModelForCausalLM": PlainModel(
        partial(grok_shapes, kind="scale"), partial(grok, kind="scale")
    ),
    "Grok1ForCausalLM": PlainModel(
        partial(grok_shapes, kind="weight"), partial(grok, kind="weight")
    ),
    "PanguUltraMoEForCausalLM": PlainModel(pangu_shapes, pangu),
    "SolarForCausalLM": PlainModel(llama_shapes, solar),
    "JAISLMHeadModel": PlainModel(jais_shapes, jais),
}
