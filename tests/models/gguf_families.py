"""Tiny configs of the families that GGUF files hold, with the values that their files cannot say otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.torch import load_file

from tests.models import gguf_recent, gguf_states
from tests.models.case import COMMON

SMALL = COMMON | {"vocab_size": 96, "intermediate_size": 96, "rope_theta": 700.0}
SMALL |= {"rms_norm_eps": 1e-5, "max_position_embeddings": 256, "num_hidden_layers": 4}
CLASSIC = {key: value for key, value in SMALL.items() if key not in ("rms_norm_eps", "rope_theta")}
H = {"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256, "n_inner": 256, "vocab_size": 96}
ROUTED = {
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 32,
    "n_shared_experts": 2,
    "first_k_dense_replace": 1,
    "routed_scaling_factor": 1.7,
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
}
BIASES = {"attention_bias": True, "mlp_bias": True}
HALF = ["sliding_attention", "full_attention"] * 2
THREE = ["sliding_attention"] * 3 + ["full_attention"]


def named(architecture: str, model_type: str, **values: Any) -> dict[str, Any]:
    return SMALL | {"architectures": [architecture], "model_type": model_type} | values


def classic(architecture: str, model_type: str, **values: Any) -> dict[str, Any]:
    return CLASSIC | {"architectures": [architecture], "model_type": model_type} | values


def of_h(architecture: str, model_type: str, **values: Any) -> dict[str, Any]:
    ids = {key: SMALL[key] for key in ("bos_token_id", "eos_token_id", "torch_dtype")}
    return ids | H | {"architectures": [architecture], "model_type": model_type} | values


CONFIGS: dict[str, dict[str, Any]] = {
    "gpt-oss": named(
        "GptOssForCausalLM",
        "gpt_oss",
        head_dim=32,
        num_local_experts=6,
        num_experts_per_tok=3,
        sliding_window=24,
        rope_scaling={
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "truncate": False,
        },
    ),
    "granitemoe": named(
        "GraniteMoeForCausalLM",
        "granitemoe",
        num_local_experts=6,
        num_experts_per_tok=3,
        embedding_multiplier=3.0,
        attention_multiplier=0.4,
        residual_multiplier=0.6,
        logits_scaling=0.7,
    ),
    "smollm3": named("SmolLM3ForCausalLM", "smollm3", no_rope_layers=[1, 1, 1, 0], **BIASES),
    "seed_oss": named(
        "SeedOssForCausalLM", "seed_oss", head_dim=32, attention_out_bias=True, **BIASES
    ),
    "arcee": named("ArceeForCausalLM", "arcee", head_dim=32, **BIASES),
    "ernie4_5": named("Ernie4_5ForCausalLM", "ernie4_5", head_dim=32, use_bias=True),
    "exaone4": named(
        "Exaone4ForCausalLM",
        "exaone4",
        head_dim=32,
        sliding_window=24,
        sliding_window_pattern=4,
        layer_types=THREE,
    ),
    "olmo3": named(
        "Olmo3ForCausalLM", "olmo3", sliding_window=24, layer_types=THREE, rope_theta=500000.0
    ),
    "glm4": named("Glm4ForCausalLM", "glm4", head_dim=32, attention_bias=True),
    "hunyuan-dense": named("HunYuanDenseV1ForCausalLM", "hunyuan_v1_dense", head_dim=32),
    "minicpm": named(
        "MiniCPMForCausalLM", "minicpm", scale_emb=3.0, scale_depth=0.7, dim_model_base=48
    ),
    "olmo": named("OlmoForCausalLM", "olmo", rms_norm_eps=None),
    "olmoe": named("OlmoeForCausalLM", "olmoe", num_experts=6, num_experts_per_tok=3),
    "nemotron": classic(
        "NemotronForCausalLM",
        "nemotron",
        head_dim=16,
        norm_eps=0.01,
        rope_theta=700.0,
        partial_rotary_factor=0.25,
        hidden_act="relu2",
    ),
    "command-r": classic(
        "CohereForCausalLM",
        "cohere",
        layer_norm_eps=0.01,
        logit_scale=0.4,
        rope_theta=700.0,
        use_qk_norm=True,
    ),
    "cohere2": classic(
        "Cohere2ForCausalLM",
        "cohere2",
        rotary_pct=1.0,
        head_dim=16,
        layer_norm_eps=0.01,
        logit_scale=0.4,
        rope_theta=700.0,
        sliding_window=24,
        layer_types=THREE,
    ),
    "dots1": named("Dots1ForCausalLM", "dots1", head_dim=32, **ROUTED),
    "glm4moe": named(
        "Glm4MoeForCausalLM",
        "glm4_moe",
        head_dim=32,
        attention_bias=True,
        use_qk_norm=True,
        partial_rotary_factor=0.5,
        num_nextn_predict_layers=0,
        **ROUTED,
    ),
    "ernie4_5-moe": named(
        "Ernie4_5_MoeForCausalLM",
        "ernie4_5_moe",
        head_dim=32,
        moe_num_experts=6,
        moe_k=3,
        moe_intermediate_size=32,
        moe_num_shared_experts=2,
        moe_layer_start_index=1,
        moe_layer_interval=1,
        tie_word_embeddings=False,
    ),
    "minimax-m2": named(
        "MiniMaxM2ForCausalLM",
        "minimax_m2",
        head_dim=32,
        rotary_dim=16,
        num_local_experts=6,
        num_experts_per_tok=3,
    ),
    "bailingmoe2": named(
        "BailingMoeV2ForCausalLM",
        "bailing_moe",
        head_dim=32,
        num_experts=12,
        num_experts_per_tok=3,
        moe_intermediate_size=32,
        num_shared_experts=2,
        first_k_dense_replace=1,
        routed_scaling_factor=1.7,
        n_group=3,
        topk_group=2,
        norm_topk_prob=True,
        partial_rotary_factor=0.5,
        score_function="sigmoid",
    ),
    "phi2": classic(
        "PhiForCausalLM",
        "phi",
        layer_norm_eps=0.01,
        num_key_value_heads=4,
        partial_rotary_factor=0.5,
        intermediate_size=256,
        rope_theta=10000.0,
    ),
    "gptneox": {
        **{key: value for key, value in CLASSIC.items() if key != "num_key_value_heads"},
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "layer_norm_eps": 0.01,
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
    },
    "gpt2": of_h("GPT2LMHeadModel", "gpt2", layer_norm_epsilon=0.01, n_ctx=256),
    "starcoder": of_h(
        "GPTBigCodeForCausalLM", "gpt_bigcode", layer_norm_epsilon=0.01, multi_query=True
    ),
    "bloom": {
        **{
            key: SMALL[key] for key in ("vocab_size", "torch_dtype", "bos_token_id", "eos_token_id")
        },
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "n_embed": 64,
        "n_layer": 3,
        "n_head": 4,
        "layer_norm_epsilon": 0.01,
    },
    "falcon": {
        **{
            key: value
            for key, value in CLASSIC.items()
            if key not in ("num_key_value_heads", "intermediate_size", "max_position_embeddings")
        },
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "layer_norm_epsilon": 0.01,
        "multi_query": True,
        "num_kv_heads": 1,
        "parallel_attn": True,
        "new_decoder_architecture": False,
        "bias": False,
    },
    "falcon_grouped": {
        **{
            key: value
            for key, value in CLASSIC.items()
            if key not in ("num_key_value_heads", "intermediate_size", "max_position_embeddings")
        },
        "architectures": ["FalconForCausalLM"],
        "model_type": "falcon",
        "layer_norm_epsilon": 0.01,
        "new_decoder_architecture": True,
        "num_kv_heads": 2,
        "bias": False,
    },
    "starcoder2": classic(
        "Starcoder2ForCausalLM",
        "starcoder2",
        norm_epsilon=0.01,
        rope_theta=700.0,
        use_bias=True,
        sliding_window=None,
        hidden_act="gelu_pytorch_tanh",
    ),
    "stablelm": classic(
        "StableLmForCausalLM",
        "stablelm",
        layer_norm_eps=0.01,
        partial_rotary_factor=0.25,
        use_qkv_bias=True,
        use_parallel_residual=False,
        rope_theta=10000.0,
    ),
    "internlm2": named("InternLM2ForCausalLM", "internlm2", bias=False),
    **gguf_states.CONFIGS,
}
"""By `general.architecture`, or a form of it."""

IN_PAIRS = ("granitemoe", "smollm3", "arcee", "minicpm", "olmo", "internlm2", "deepseek")
IN_PAIRS += ("granitehybrid", "granitehybrid_dense", "nemotron_h", "nemotron_h_moe")
WHOLE = (
    "norm",
    "ssm_",
    "shortconv",
    "gate_inp",
    "altup",
    "laurel",
    "per_layer_model",
    "token_types",
)
"""Parts of names of matrices that are not rounded: here some more than there, whose rows are too short."""
WRITTEN = json.loads((Path(__file__).parent.parent / "data" / "gguf_families.json").read_text())
"""Of each: `general.architecture`, and the settings with their types that llama.cpp's converter wrote for it.

They are those of the converter that auto-round 0.16.1 carries, and for what `gguf_states` has of the one that
llama-cpp-python 0.3.36 carries (`deepseek2_old` with the sizes that it wrote before keys and values were apart);
their tensors are the ones that are written below."""


def write_family(
    name: str,
    folder: Path,
    path: Path,
    more: Callable[[gguf.GGUFWriter], None] | None = None,
    is_rounded: bool = False,
) -> Path:
    """The folder with a config above as a file of floats, with the package's writer and its names of tensors.

    is_rounded  matrices are of Q8_0, but those that llama.cpp's quantizer leaves as they are.
    """
    arch = WRITTEN[name]["arch"]
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_tokenizer_model("none")
    for key, (kind, value) in WRITTEN[name]["settings"].items():
        outer, _, inner = kind.partition(":")
        types = gguf.GGUFValueType
        writer.add_key_value(key, value, types[outer], types[inner] if inner else None)
    kinds = {text: one for one, text in gguf.MODEL_ARCH_NAMES.items()}
    alike = {"deepseek32": "glm-dsa"}  # which the package does not know
    names = gguf.get_tensor_name_map(kinds[alike.get(arch, arch)], 32)
    for source, values in _tensors(name, folder).items():
        stem, _, end = source.rpartition(".")
        target = names.get_name(source) or names.get_name(stem)
        if source.startswith("blk."):
            target = source
        assert target is not None, source
        if source.startswith("blk.") or end in ("A_log", "D"):
            pass
        elif end == "bias" or names.get_name(source) is None:
            target = f"{target}.{end}"
        elif not source.endswith("_exps"):
            target = f"{target}.weight"
        values = np.ascontiguousarray(values, dtype=np.float32)
        if is_rounded and values.ndim > 1 and not any(part in target for part in WHOLE):
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(target, gguf.quants.quantize(values, q8), raw_dtype=q8)
        else:
            writer.add_tensor(target, values)
    if found := gguf_recent.factors(name):
        writer.add_tensor("rope_freqs.weight", np.array(found, dtype=np.float32))
    for kind, factors in gguf_states.factors(name).items():
        writer.add_tensor(f"rope_factors_{kind}.weight", np.array(factors, dtype=np.float32))
    if more is not None:
        more(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tensors(name: str, folder: Path) -> dict[str, np.ndarray]:
    """By names that the package knows, experts stacked, in the order and form that files have."""
    config, found = CONFIGS[name], {}
    heads = config.get("num_attention_heads", 4)
    kv_heads = config.get("num_key_value_heads", heads)
    for source, one in load_file(folder / "model.safetensors").items():
        values = one.float().numpy()
        if name == "bloom":
            source = source.removeprefix("transformer.")
        if source.endswith("wqkv.weight"):
            rows = values.reshape(kv_heads, heads // kv_heads + 2, -1, values.shape[-1])
            parts = rows[:, :-2], rows[:, -2], rows[:, -1]
            for part, kept in zip("qkv", parts, strict=True):
                kept = kept.reshape(-1, values.shape[-1])
                count = {"q": heads, "k": kv_heads}.get(part)
                stem = source.replace("wqkv.weight", f"w{part}.weight")
                found[stem] = kept if count is None else _in_pairs(kept, count)
            continue
        if name in IN_PAIRS and (".q_proj." in source or ".k_proj." in source):
            values = _in_pairs(values, heads if ".q_proj." in source else kv_heads)
        if name == "nemotron" and source.endswith("norm.weight"):
            values = values + np.float32(1.0)
        if name in ("gptneox", "bloom") and "query_key_value" in source:
            turns = values.reshape(4, 3, -1, *values.shape[1:])
            values = turns.swapaxes(0, 1).reshape(values.shape)
        if name.startswith("falcon") and "query_key_value" in source:
            groups = config["num_kv_heads"]
            rows = values.reshape(groups, -1, 16, values.shape[-1])
            parts = rows[:, :-2], rows[:, -2], rows[:, -1]
            values = np.concatenate([part.reshape(-1, values.shape[-1]) for part in parts])
        if (
            name == "gpt2"
            and values.ndim == 2
            and source.rpartition(".")[0].endswith(("c_attn", "c_proj", "c_fc"))
        ):
            values = values.T
        if name in gguf_states.CONFIGS:
            found |= gguf_states.forms(name, source, values)
            continue
        found |= _expert_parts(name, source, values)
    if config.get("tie_word_embeddings"):
        found.pop("lm_head.weight", None)
    found = {
        f"{source.removesuffix('_bias')}.bias"
        if source.endswith("correction_bias")
        else source: one
        for source, one in found.items()
    }
    return _stacked(gguf_states.stacked(found))


def _in_pairs(values: np.ndarray, count: int) -> np.ndarray:
    parts = values.reshape(count, 2, -1, *values.shape[1:])
    return parts.swapaxes(1, 2).reshape(values.shape)


def _expert_parts(name: str, source: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Gate and up apart, and everything [E, out, in]."""
    if name == "gpt-oss" and ".experts." in source:
        stem, _, part = source.rpartition(".")
        kind, part = (
            ("bias", part.removesuffix("_bias")) if part.endswith("_bias") else ("weight", part)
        )
        values = values if kind == "bias" else values.swapaxes(1, 2)
        if part == "down_proj":
            return {f"{stem}.down_proj.{kind}": values}
        return {
            f"{stem}.{one}_proj.{kind}": values[:, at::2] for at, one in enumerate(("gate", "up"))
        }
    if name == "granitemoe" and "input_linear" in source:
        stem, half = source.removesuffix("input_linear.weight"), values.shape[1] // 2
        return {
            f"{stem}experts.w1.weight": values[:, :half],
            f"{stem}experts.w3.weight": values[:, half:],
        }
    if name == "gpt-oss" and source.endswith("sinks"):
        return {f"{source}.weight": values}
    if source.endswith("expert_bias"):
        source = source.replace("expert_bias", "e_score_correction_bias")
    if source.endswith("correction_bias"):
        return {f"{source.removesuffix('_bias')}.bias": values}
    return {source: values}


def _stacked(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    experts: dict[str, dict[int, np.ndarray]] = {}
    for source, values in found.items():
        before, _, after = source.partition(".experts.")
        number, _, rest = after.partition(".")
        if number.isdigit():
            experts.setdefault(f"{before}.experts.{rest}", {})[int(number)] = values
        else:
            made[source] = values
    stacks = {key: np.stack([parts[at] for at in sorted(parts)]) for key, parts in experts.items()}
    return made | stacks
