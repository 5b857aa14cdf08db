"""Rows of GGUF's families whose norms take the mean away, encoders among them, with names of their own."""

from __future__ import annotations

from quire.models.loading.gguf.family import Family
from quire.models.names import Rule

_OF_H = {
    "hidden_size": "n_embd",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "intermediate_size": "n_inner",
}
_GPT2 = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_GPT2_TOP = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
}
_BLOOM = {
    "attn_qkv": "self_attention.query_key_value",
    "attn_output": "self_attention.dense",
    "ffn_up": "mlp.dense_h_to_4h",
    "ffn_down": "mlp.dense_4h_to_h",
}
_BLOOM_TOP = {
    "token_embd": "transformer.word_embeddings",
    "token_embd_norm": "transformer.word_embeddings_layernorm",
    "output_norm": "transformer.ln_f",
}
_HEAD = {"cls": "classifier.dense", "cls.output": "classifier.out_proj"}
_ENCODER_TOP = {
    "token_embd": "embeddings.word_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}
_EXPERT, _PART = "encoder.layers.{layer}.mlp.experts.{expert}", "layers.{layer}.feed_forward"
CLASSIC: dict[str, Family] = {
    "bert": Family(
        "BertModel",
        names={
            "attn_q": "attention.self.query",
            "attn_k": "attention.self.key",
            "attn_v": "attention.self.value",
            "attn_output": "attention.output.dense",
            "attn_output_norm": "attention.output.LayerNorm",
            "ffn_up": "intermediate.dense",
            "ffn_down": "output.dense",
            "layer_output_norm": "output.LayerNorm",
        },
        top=_ENCODER_TOP | _HEAD,
        layers="encoder.layer",
    ),
    "t5": Family(
        "T5ForConditionalGeneration",
        names={
            **{
                f"{side}{theirs}": ours
                for side in ("enc.", "dec.")
                for theirs, ours in {
                    **{f"attn_{part}": f"layer.0.SelfAttention.{part}" for part in "qkvo"},
                    "attn_norm": "layer.0.layer_norm",
                    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
                }.items()
            },
            **{f"dec.cross_attn_{part}": f"layer.1.EncDecAttention.{part}" for part in "qkvo"},
            "dec.cross_attn_norm": "layer.1.layer_norm",
            **{
                f"{side}ffn_{theirs}": f"layer.{place}.{ours}"
                for side, place in (("enc.", 1), ("dec.", 2))
                for theirs, ours in (
                    ("norm", "layer_norm"),
                    ("up", "DenseReluDense.wi"),
                    ("down", "DenseReluDense.wo"),
                )
            },
        },
        top={
            "token_embd": "shared",
            "enc.output_norm": "encoder.final_layer_norm",
            "dec.output_norm": "decoder.final_layer_norm",
        },
        sides={"enc.": "encoder.block", "dec.": "decoder.block"},
        with_gates={
            f"{side}ffn_{theirs}": f"layer.{place}.DenseReluDense.{ours}"
            for side, place in (("enc.", 1), ("dec.", 2))
            for theirs, ours in (("gate", "wi_0"), ("up", "wi_1"))
        },
    ),
    "nomic-bert": Family(
        "NomicBertModel",
        model_type="nomic_bert",
        names={
            "attn_qkv": "attn.Wqkv",
            "attn_output": "attn.out_proj",
            "attn_output_norm": "norm1",
            "ffn_up": "mlp.fc11",
            "ffn_gate": "mlp.fc12",
            "ffn_down": "mlp.fc2",
            "layer_output_norm": "norm2",
        },
        top=_ENCODER_TOP | {"token_embd_norm": "emb_ln"},
        layers="encoder.layers",
    ),
    "nomic-bert-moe": Family(
        "NomicBertModel",
        model_type="nomic_bert",
        names={
            "attn_qkv": "attn.Wqkv",
            "attn_output": "attn.out_proj",
            "attn_output_norm": "norm1",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
            "ffn_gate_inp": "mlp.router.layer",
            "ffn_up_exps": "mlp.experts.{expert}.up",
            "ffn_down_exps": "mlp.experts.{expert}.down",
            "layer_output_norm": "norm2",
        },
        top=_ENCODER_TOP | {"token_embd_norm": "emb_ln"},
        layers="encoder.layers",
        instead=tuple(
            Rule(f"{_EXPERT}.{part}.weight", f"{_PART}.experts.{{expert}}.{part}.weight")
            for part in ("up", "down")
        ),
        left_out=(f"{_PART}.bias",),
    ),
    "jina-bert-v2": Family(
        "JinaBertModel",
        model_type="bert",
        names={
            "attn_q": "attention.self.query",
            "attn_k": "attention.self.key",
            "attn_v": "attention.self.value",
            "attn_q_norm": "attention.self.layer_norm_q",
            "attn_k_norm": "attention.self.layer_norm_k",
            "attn_output": "attention.output.dense",
            "attn_output_norm": "attention.output.LayerNorm",
            "ffn_up": "mlp.gated_layers",
            "ffn_down": "mlp.wo",
            "layer_output_norm": "mlp.layernorm",
        },
        with_two_norms={
            "attn_norm_2": "layer_norm_1",
            "ffn_up": "mlp.up_gated_layer",
            "ffn_down": "mlp.down_layer",
            "layer_output_norm": "layer_norm_2",
        },
        top=_ENCODER_TOP,
        layers="encoder.layer",
    ),
    "modern-bert": Family(
        "ModernBertModel",
        model_type="modernbert",
        names={
            "attn_norm": "attn_norm",
            "attn_qkv": "attn.Wqkv",
            "attn_output": "attn.Wo",
            "ffn_norm": "mlp_norm",
            "ffn_up": "mlp.Wi",
            "ffn_down": "mlp.Wo",
        },
        top={
            "token_embd": "embeddings.tok_embeddings",
            "token_embd_norm": "embeddings.norm",
            "output_norm": "final_norm",
            "cls": "head.dense",
            "cls.norm": "head.norm",
            "cls.output": "classifier",
        },
        layers="layers",
    ),
    "phi2": Family(
        "PhiForCausalLM",
        model_type="phi",
        eps="layer_norm_eps",
        names={
            "attn_output": "self_attn.dense",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
        },
        top={"output_norm": "model.final_layernorm"},
        head_dim=False,
    ),
    "gptneox": Family(
        "GPTNeoXForCausalLM",
        model_type="gpt_neox",
        eps="layer_norm_eps",
        keys={"use_parallel_residual": "use_parallel_residual"},
        names={
            **_BLOOM,
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
        },
        top={
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "embed_out",
        },
        layers="gpt_neox.layers",
        parts_in_rows=True,
        head_dim=False,
    ),
    "gpt2": Family(
        "GPT2LMHeadModel",
        eps="layer_norm_epsilon",
        renamed=_OF_H,
        names=_GPT2,
        top=_GPT2_TOP,
        layers="transformer.h",
        turned=True,
        head_dim=False,
    ),
    "starcoder": Family(
        "GPTBigCodeForCausalLM",
        model_type="gpt_bigcode",
        eps="layer_norm_epsilon",
        renamed=_OF_H,
        names=_GPT2,
        top=_GPT2_TOP,
        layers="transformer.h",
        head_dim=False,
    ),
    "bloom": Family(
        "BloomForCausalLM",
        eps="layer_norm_epsilon",
        renamed={
            **_OF_H,
            "max_position_embeddings": "",
            "intermediate_size": "",
            "hidden_size": "n_embed",
        },
        names=_BLOOM,
        top=_BLOOM_TOP,
        layers="transformer.h",
        parts_in_rows=True,
        head_dim=False,
    ),
    "falcon": Family(
        "FalconForCausalLM",
        eps="layer_norm_epsilon",
        renamed={"intermediate_size": "ffn_hidden_size", "max_position_embeddings": ""},
        names=_BLOOM,
        with_two_norms={"attn_norm": "ln_mlp", "attn_norm_2": "ln_attn"},
        top=_BLOOM_TOP,
        layers="transformer.h",
        parts_in_rows=True,
        head_dim=False,
    ),
    "starcoder2": Family(
        "Starcoder2ForCausalLM",
        eps="norm_epsilon",
        names={"ffn_up": "mlp.c_fc", "ffn_down": "mlp.c_proj"},
        flags={"use_bias": "attn_q.bias"},
        head_dim=False,
    ),
    "stablelm": Family(
        "StableLmForCausalLM",
        eps="layer_norm_eps",
        keys={"use_parallel_residual": "use_parallel_residual"},
        flags={"use_qkv_bias": "attn_q.bias", "qk_layernorm": "attn_q_norm.weight"},
        head_dim=False,
    ),
}
"""By `general.architecture`."""
