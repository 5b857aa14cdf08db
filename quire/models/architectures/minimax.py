"""MiniMax Text-01 and M1: linear attention that forgets at fixed rates, attention in every eighth layer, experts.

Spellings shared with other families are in `models.hf_decoder`; MiniMax M2 is in `glm_moe`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, attention, decoder, experts
from quire.models.hf_parts import demand, demand_each, layer_kinds
from quire.models.name_parts import LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule, expert_rules, router_rules
from quire.models.recurrent import LinearAttention
from quire.models.spec import DecoderSpec, LayerSpec

_LINEAR, _FULL = "linear_attention", "full_attention"


def minimax(hf: HfConfig) -> DecoderSpec:
    """`MiniMaxForCausalLM`, and the names and keys of the first files, `MiniMaxText01ForCausalLM` and
    `MiniMaxM1ForCausalLM`. Defaults as in MiniMaxConfig. Source: arXiv 2501.08313.

    `rotary_dim` numbers of a head turn where a file has that key, as in the files' own code.
    """
    hf.skip("block_size", "shared_moe_mode")  # how sums are cut, and of shared experts
    demand(hf, "the residual stream of this architecture is normed", postnorm=True)
    demand_each(hf, shared_intermediate_size=0)
    count = hf.int_("num_hidden_layers")
    whole = attention(
        hf,
        bias=None,
        kv_heads=8,
        theta=("rope_theta", 1_000_000.0),
        part=("partial_rotary_factor", _turning(hf)),
        window=hf.optional_int("sliding_window"),
    )
    linear = LinearAttention(
        num_heads=whole.num_heads,
        head_size=whole.head_size,
        forgetting=1.0,
        activation=activation(hf),
    )
    part, eps = experts(hf, 8, 2, key="num_local_experts"), hf.positive("rms_norm_eps", 1e-5)
    of_parts = {kind: _scales(hf, kind) for kind in ("full", "linear", "mlp")}
    layers = []
    for index, kind in enumerate(_kinds(hf, count)):
        rate = 1 - index / (count - 1 + 1e-5) + 1e-5
        layers.append(
            LayerSpec(
                mixer=whole if kind == _FULL else replace(linear, forgetting=rate),
                feed_forward=part,
                placement="normed_stream",
                norm_eps=eps,
                stream_scales=(*of_parts[kind.removesuffix("_attention")], *of_parts["mlp"]),
            )
        )
    return decoder(hf, layers, max_len=131_072)


def _turning(hf: HfConfig) -> float:
    """The part of a head that turns."""
    if hf.optional_int("rotary_dim") is None:
        return 1.0
    size = hf.optional_int("head_dim") or hf.int_("hidden_size") // hf.int_("num_attention_heads")
    return hf.int_("rotary_dim") / size


def _kinds(hf: HfConfig, count: int) -> list[str]:
    """The kind of each layer: `layer_types`, or `attn_type_list` with 1 for full attention, or by turns."""
    numbers = hf.integers("attn_type_list")
    if not numbers:
        return layer_kinds(hf, (_LINEAR, _FULL), lambda index: (_FULL, _LINEAR)[index % 2])
    if len(numbers) != count or not set(numbers) <= {0, 1}:
        raise hf.refuse("attn_type_list", f"it must be 0 or 1 for each of {count} layers")
    return layer_kinds(hf, (_LINEAR, _FULL), lambda index: (_LINEAR, _FULL)[numbers[index]])


def _scales(hf: HfConfig, kind: str) -> tuple[float, float]:
    """Factors of the residual stream and of what is added to it by parts of this kind, in both spellings."""
    short, long = (kind, kind) if kind == "mlp" else (f"{kind}_attn", f"{kind}_attention")
    alpha, beta = (
        hf.positive(f"{short}_{name}_factor", hf.positive(f"layernorm_{long}_{name}", 1.0))
        for name in ("alpha", "beta")
    )
    return alpha, beta


_BLOCK = "block_sparse_moe"
NAMES = replace(
    LLAMA_NAMES.with_rules(
        Rule(
            f"{LAYER}.self_attn.qkv_proj.weight",
            f"{OURS}.mixer.in.weight",
            (0, 1, 2),
            fold="gather_heads",
        ),
        Rule(f"{LAYER}.self_attn.output_gate.weight", f"{OURS}.mixer.in.weight", (3,)),
        Rule(f"{LAYER}.self_attn.norm.weight", f"{OURS}.mixer.norm.weight"),
        Rule(f"{LAYER}.self_attn.out_proj.weight", f"{OURS}.mixer.back.weight"),
        *expert_rules(_BLOCK, ("w1", "w3", "w2")),
        *router_rules(f"{_BLOCK}.gate"),
    ),
    ignored=tuple(  # what follows from the number of heads and of the layer
        f"{LAYER}.self_attn.{name}"
        for name in ("slope_rate", "query_decay", "key_decay", "diagonal_decay")
    ),
)

ARCHITECTURES = {"MiniMaxForCausalLM": Architecture(minimax, NAMES)}
