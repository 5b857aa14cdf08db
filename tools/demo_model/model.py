"""The demo model in plain torch, of Qwen3's form, for training.

The engine and transformers have their own; `export` writes the weights under the names they know.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """Sizes of the model; names as in Qwen3's config.json."""

    vocab_size: int = 3072
    hidden_size: int = 256
    intermediate_size: int = 704
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 8192

    def hf_config(self) -> dict[str, Any]:
        """config.json, the token ids excepted."""
        return asdict(self) | {
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "hidden_act": "silu",
            "initializer_range": 0.02,
            "rope_scaling": None,
            "sliding_window": None,
            "use_sliding_window": False,
            "tie_word_embeddings": True,
            "torch_dtype": "bfloat16",
            "use_cache": True,
        }


class Layer(nn.Module):
    """Attention with normed queries and keys, then a gated feed-forward part."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        c, d = shape.hidden_size, shape.head_dim
        h, k, f = shape.num_attention_heads, shape.num_key_value_heads, shape.intermediate_size
        self.qkv = nn.Linear(c, (h + 2 * k) * d, bias=False)
        self.out = nn.Linear(h * d, c, bias=False)
        self.gate_up = nn.Linear(c, 2 * f, bias=False)
        self.down = nn.Linear(f, c, bias=False)
        self.attention_norm = nn.Parameter(torch.ones(c))
        self.mlp_norm = nn.Parameter(torch.ones(c))
        self.q_norm = nn.Parameter(torch.ones(d))
        self.k_norm = nn.Parameter(torch.ones(d))

    def forward(self, x: Tensor, angles: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """x [B, T, C] to the same; mask [B, 1, T, T] is True where a token may look."""
        s, (batch, length, _) = self.shape, x.shape
        h, k, d = s.num_attention_heads, s.num_key_value_heads, s.head_dim
        heads = self.qkv(self._norm(x, self.attention_norm)).view(batch, length, h + 2 * k, d)
        queries, keys, values = heads.split([h, k, k], dim=2)  # [B, T, H | K | K, D]
        queries = _rotate(self._norm(queries, self.q_norm), angles).transpose(1, 2)
        keys = _rotate(self._norm(keys, self.k_norm), angles).transpose(1, 2)
        keys = keys.repeat_interleave(h // k, dim=1)  # [B, H, T, D]
        values = values.transpose(1, 2).repeat_interleave(h // k, dim=1)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, h * d))
        gate, up = self.gate_up(self._norm(x, self.mlp_norm)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), weight, self.shape.rms_norm_eps)


def _rotate(x: Tensor, angles: tuple[Tensor, Tensor]) -> Tensor:
    cos, sin = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


class Model(nn.Module):
    """Embedding, layers, norm; the embedding is also the output matrix."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.Parameter(torch.ones(shape.hidden_size))
        deep = 0.02 / (2 * shape.num_hidden_layers) ** 0.5
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=deep if "out." in name or "down." in name else 0.03)

    def forward(self, ids: Tensor, mask: Tensor, chosen: Tensor) -> Tensor:
        """Logits [number of chosen, V] after the chosen positions of ids [B, T], counted flat."""
        half = self.shape.head_dim // 2
        speeds = self.shape.rope_theta ** (-torch.arange(half) / half)
        turns = torch.outer(torch.arange(ids.shape[1]), speeds)[:, None]  # [T, 1, D / 2]
        x = self.embedding(ids)
        for layer in self.layers:
            x = layer(x, (turns.cos(), turns.sin()), mask)
        x = F.rms_norm(x, (x.shape[-1],), self.norm, self.shape.rms_norm_eps)
        return x.flatten(0, 1)[chosen] @ self.embedding.weight.T


def hf_weights(model: Model) -> dict[str, Tensor]:
    """The weights under the names of Qwen3ForCausalLM's checkpoints."""
    s = model.shape
    heads = [s.num_attention_heads, s.num_key_value_heads, s.num_key_value_heads]
    weights = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm}
    for index, layer in enumerate(model.layers):
        q, k, v = layer.qkv.weight.split([n * s.head_dim for n in heads])
        gate, up = layer.gate_up.weight.chunk(2)
        own = {
            "self_attn.q_proj.weight": q, "self_attn.k_proj.weight": k, "self_attn.v_proj.weight": v,
            "self_attn.o_proj.weight": layer.out.weight,
            "self_attn.q_norm.weight": layer.q_norm, "self_attn.k_norm.weight": layer.k_norm,
            "mlp.gate_proj.weight": gate, "mlp.up_proj.weight": up,
            "mlp.down_proj.weight": layer.down.weight,
            "input_layernorm.weight": layer.attention_norm,
            "post_attention_layernorm.weight": layer.mlp_norm,
        }  # fmt: skip
        weights |= {f"model.layers.{index}.{name}": weight for name, weight in own.items()}
    return {name: weight.detach().clone() for name, weight in weights.items()}
