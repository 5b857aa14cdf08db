"""JetMoE: a router chooses each token's heads of q, another one its experts.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import activation, decoder, experts
from quire.models.hf_parts import demand, rope
from quire.models.name_parts import LAYER, OURS
from quire.models.names import LLAMA_NAMES, Rule, router_rules
from quire.models.spec import Attention, DecoderSpec, LayerSpec

_OLDER = {  # how the first published files say it
    "intermediate_size": "ffn_hidden_size",
    "num_local_experts": "moe_num_experts",
    "num_experts_per_tok": "moe_top_k",
    "max_position_embeddings": "n_positions",
}


def jetmoe(hf: HfConfig) -> DecoderSpec:
    """`JetMoeForCausalLM`; defaults as in JetMoeConfig. Source: arXiv 2404.07413."""
    hf.skip("num_attention_heads", "num_layers", "aux_loss_coef", "layer_norm_epsilon")
    demand(hf, "no checkpoint of this architecture has it", glu=True, bias=True)
    for name, older in _OLDER.items():
        value = hf.optional_int(older)
        hf.add_defaults({} if value is None else {name: value})
    part = experts(
        hf,
        8,
        2,
        key="num_local_experts",
        width=hf.int_("intermediate_size", 5632),
        activation=activation(hf, key="activation_function"),
        sum_bias=True,
    )
    heads, size = hf.int_("num_key_value_heads", 16), hf.int_("kv_channels", 128)
    mixer = Attention(
        num_heads=heads * part.num_experts,
        num_kv_heads=heads,
        head_size=size,
        rope=rope(hf, head_size=size, part=("rotary_percent", 1.0)),
        out_bias=True,
        chosen=part.top_k,
    )
    eps = hf.positive("rms_norm_eps", 1e-6)  # of the last norm; that of layers is not told
    layer = LayerSpec(mixer=mixer, feed_forward=part, norm_eps=1e-6)
    return decoder(hf, layer, max_len=4096, tie=True, norm_eps=eps)


_HEADS, _PART = f"{LAYER}.self_attention", f"{OURS}.feed_forward"
_NAMES = LLAMA_NAMES.with_rules(
    Rule(f"{_HEADS}.experts.input_linear.weight", f"{OURS}.mixer.qkv.weight", fold="set_rows"),
    Rule(f"{_HEADS}.kv_proj.weight", f"{OURS}.mixer.qkv.weight", parts=(1, 2)),
    Rule(f"{_HEADS}.experts.output_linear.weight", f"{OURS}.mixer.out.weight", fold="set_columns"),
    Rule(f"{_HEADS}.experts.bias", f"{OURS}.mixer.out.bias"),
    Rule(f"{_HEADS}.experts.router.layer.weight", f"{OURS}.mixer.router.weight"),
    Rule(f"{LAYER}.mlp.input_linear.weight", f"{_PART}.experts.{{expert}}.gate_up.weight", (0, 1)),
    Rule(f"{LAYER}.mlp.output_linear.weight", f"{_PART}.experts.{{expert}}.down.weight"),
    Rule(f"{LAYER}.mlp.bias", f"{_PART}.bias"),
    *router_rules("mlp.router.layer"),
).without_source(
    *(f"{LAYER}.self_attn.{name}_proj.{kind}" for name in "qkvo" for kind in ("weight", "bias"))
)

ARCHITECTURES = {"JetMoeForCausalLM": Architecture(jetmoe, _NAMES)}
