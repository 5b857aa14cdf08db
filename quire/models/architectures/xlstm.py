"""xLSTM: nothing but matrices of keys and values that forget, and feed-forward parts.

Spellings shared with other families are in `models.hf_decoder`.
"""

from __future__ import annotations

from dataclasses import replace

from quire.models.family import Architecture
from quire.models.hf_config import HfConfig
from quire.models.hf_decoder import decoder, head_share
from quire.models.hf_mamba import STATE_LEN
from quire.models.hf_parts import demand
from quire.models.name_parts import OURS, gate_and_up, pair, with_head
from quire.models.names import Rule
from quire.models.recurrent import MatrixMemory
from quire.models.spec import DecoderSpec, Dense, LayerSpec


def xlstm(hf: HfConfig) -> DecoderSpec:
    """`xLSTMForCausalLM`; defaults as in xLSTMConfig. Source: arXiv 2503.13427.

    As in Transformers the output matrix is one of its own, whatever `tie_word_embeddings` says.
    """
    for name, older in (("hidden_size", "embedding_dim"), ("num_hidden_layers", "num_blocks")):
        size = hf.optional_int(older)
        hf.add_defaults({} if size is None else {name: size})
    hf.skip("chunkwise_kernel", "sequence_kernel", "step_kernel", "mode", "chunk_size")
    hf.skip("return_last_states", "autocast_kernel_dtype", "inference_state_dtype")
    hf.skip("max_inference_chunksize", "norm_reduction_force_float32")
    demand(hf, "no checkpoint of this architecture has it", use_bias=False, add_out_norm=True)
    hf.choice("weight_mode", {"single": True}, "single")
    size, heads = hf.int_("hidden_size", 4096), hf.int_("num_heads", 8)
    eps = hf.positive("norm_eps", 1e-6)
    keys, values = (
        head_share(hf, int(size * hf.positive(f"{name}_dim_factor", factor)), heads, _KEYS)
        for name, factor in (("qk", 0.5), ("v", 1.0))
    )
    multiple = hf.int_("ffn_round_up_to_multiple_of", 64)
    width = int(size * hf.positive("ffn_proj_factor", 2.667) + multiple - 1) // multiple * multiple
    mixer = MatrixMemory(
        num_heads=heads,
        key_size=keys,
        value_size=values,
        cap=hf.positive("gate_soft_cap", 15.0),
        eps=hf.positive("eps", 1e-6),
        norm_eps=eps,
    )
    layer = LayerSpec(mixer=mixer, feed_forward=Dense(width=width), norm_eps=eps)
    softcap = hf.positive("output_logit_soft_cap", 30.0)
    layers = (layer,) * hf.int_("num_hidden_layers", 32)
    spec = decoder(hf, layers, hidden_size=size, max_len=STATE_LEN, logit_softcap=softcap)
    return replace(spec, tie_head=False)


_KEYS = ("hidden_size", "num_heads")
_LAYER = "backbone.blocks.{layer}"
_CELL, _MIXER = f"{_LAYER}.mlstm_layer", f"{OURS}.mixer"
_NAMES = with_head(
    Rule("backbone.embeddings.weight", "embedding.weight"),
    Rule(f"{_LAYER}.norm_mlstm.weight", f"{OURS}.norm_before_mixer.weight"),
    *(
        Rule(f"{_CELL}.{name}.weight", f"{_MIXER}.in.weight", parts=(part,))
        for part, name in enumerate(("q", "k", "v", "ogate_preact"))
    ),
    *pair(f"{_CELL}.igate_preact", f"{_MIXER}.gates", parts=(0,)),
    *pair(f"{_CELL}.fgate_preact", f"{_MIXER}.gates", parts=(1,)),
    Rule(f"{_CELL}.multihead_norm.weight", f"{_MIXER}.norm.weight"),
    Rule(f"{_CELL}.out_proj.weight", f"{_MIXER}.back.weight"),
    Rule(f"{_LAYER}.norm_ffn.weight", f"{OURS}.norm_before_feed_forward.weight"),
    *gate_and_up(f"{_LAYER}.ffn", "proj_up_gate", "proj_up"),
    Rule(f"{_LAYER}.ffn.proj_down.weight", f"{OURS}.feed_forward.down.weight"),
    Rule("backbone.out_norm.weight", "final_norm.weight"),
)

ARCHITECTURES = {"xLSTMForCausalLM": Architecture(xlstm, _NAMES)}
