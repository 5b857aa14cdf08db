"""Ouro in plain torch, as Transformers would have it: written from arXiv 2510.25741, section 3, and the model card.

A stack of layers runs several times; each time its result is normed, and is what the next time starts from.
Shares no code with `quire`; `register` makes it known to Transformers' Auto classes.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention, silu
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput


class OuroConfig(PretrainedConfig):
    model_type = "ouro"


class Attention(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.size, self.theta = config.head_dim, config.rope_theta
        wide, narrow = (
            count * self.size for count in (config.num_attention_heads, config.num_key_value_heads)
        )
        self.q_proj = nn.Linear(config.hidden_size, wide, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, narrow, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, narrow, bias=False)
        self.o_proj = nn.Linear(wide, config.hidden_size, bias=False)

    def turned(self, heads: torch.Tensor) -> torch.Tensor:
        """Complex numbers of the first and second half of a head, turned by their position; angles are float32."""
        half = self.size // 2
        rates = 1.0 / self.theta ** (torch.arange(half).float() / half)
        angles = torch.arange(heads.shape[-2]).float()[:, None] * rates
        numbers = torch.complex(heads[..., :half].float(), heads[..., half:].float())
        numbers = numbers * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((numbers.real, numbers.imag), dim=-1).to(heads.dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (
            product(x).unflatten(-1, (-1, self.size)).transpose(1, 2)
            for product in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = scaled_dot_product_attention(
            self.turned(q), self.turned(k), v, is_causal=True, enable_gqa=True
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(config), Mlp(config)
        for name in ("input_layernorm", "post_attention_layernorm"):
            for end in ("", "_2"):
                setattr(self, name + end, nn.RMSNorm(config.hidden_size, config.rms_norm_eps))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.input_layernorm_2(self.self_attn(self.input_layernorm(x)))
        return x + self.post_attention_layernorm_2(self.mlp(self.post_attention_layernorm(x)))


class Model(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.early_exit_gate = nn.Linear(config.hidden_size, 1)

    def forward(self, ids: torch.Tensor, times: int) -> torch.Tensor:
        x = self.embed_tokens(ids)
        for _ in range(times):
            for layer in self.layers:
                x = layer(x)
            x = self.norm(x)
        return x


class OuroForCausalLM(PreTrainedModel):
    config_class = OuroConfig
    _supports_sdpa = True

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model = Model(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False) -> CausalLMOutput:
        hidden = self.model(input_ids, self.config.total_ut_steps)
        return CausalLMOutput(logits=self.lm_head(hidden))


def register() -> None:
    """From now on Transformers' Auto classes know it."""
    AutoConfig.register("ouro", OuroConfig, exist_ok=True)
    AutoModelForCausalLM.register(OuroConfig, OuroForCausalLM, exist_ok=True)
