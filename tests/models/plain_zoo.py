"""Rarer architectures that Transformers lacks, in plain torch, as in `plain_models`, whose parts these use.

Written from the public descriptions and from nothing of ours; one sequence, no cache, float32.
"""

from __future__ import annotations

import torch
from torch.nn.functional import linear, silu

from tests.models.plain_models import PLAIN_MODELS as FIRST_MODELS
from tests.models.plain_models import (
    Config,
    PlainModel,
    Shapes,
    Tensors,
    attended,
    embedded_shapes,
    halves_turned,
    head,
    llama_heads,
    llama_part,
    llama_shapes,
    rms,
    slopes,
)


def grouped(config: Config) -> Config:
    """The number of heads of k under Llama's key."""
    return config | {"num_key_value_heads": config["num_attention_groups"]}


def step1_shapes(config: Config) -> Shapes:
    """Llama's names, with biases in the part behind attention."""
    shapes = llama_shapes(grouped(config))
    inner = config["intermediate_size"]
    for index in range(config["num_hidden_layers"]):
        for name, size in (("gate", inner), ("up", inner), ("down", config["hidden_size"])):
            shapes[f"model.layers.{index}.mlp.{name}_proj.bias"] = (size,)
    return shapes


def step1(tensors: Tensors, config: Config, ids: torch.Tensor) -> torch.Tensor:
    """Llama without turns; scores fall by a slope of the head times the root of the distance."""
    eps, x = config["rms_norm_eps"], tensors["model.embed_tokens.weight"][ids]
    places = torch.arange(len(ids))
    roots = (places[:, None] - places[None]).clamp(min=0).float().sqrt()
    bias = -torch.tensor(slopes(config["num_attention_heads"]))[:, None, None] * roots
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}"
        y = rms(x, tensors[f"{at}.input_layernorm.weight"], eps)
        mixed = attended(*llama_heads(y, tensors, at, grouped(config)), bias=bias)
        x = x + linear(mixed, tensors[f"{at}.self_attn.o_proj.weight"])
        y = rms(x, tensors[f"{at}.post_attention_layernorm.weight"], eps)
        gate, up, down = (
            [tensors[f"{at}.mlp.{name}_proj.{kind}"] for kind in ("weight", "bias")]
            for name in ("gate", "up", "down")
        )
        x = x + linear(silu(linear(y, *gate)) * linear(y, *up), *down)
    return head(x, tensors, config)


def step3_shapes(config: Config) -> Shapes:
    """One head of k and v, queries through few numbers, and experts in three tensors a layer."""
    width, rank, size = config["hidden_size"], config["share_q_dim"], config["head_dim"]
    heads = config["num_attention_heads"] * size
    count, inner = config["moe_num_experts"], config["moe_intermediate_size"]
    shapes = embedded_shapes(config)
    routed = [int(one) for one in config["moe_layers_enum"].split(",")]

    def part(at: str, inner: int) -> Shapes:
        sizes = {"gate": (inner, width), "up": (inner, width), "down": (width, inner)}
        return {f"{at}.{name}_proj.weight": size for name, size in sizes.items()}

    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.{index}"
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}.{name}.weight"] = (width,)
        for name, shape in (
            ("q_proj", (rank, width)),
            ("k_proj", (size, width)),
            ("v_proj", (size, width)),
            ("inter_norm", (rank,)),
            ("wq", (heads, rank)),
            ("o_proj", (width, heads)),
        ):
            shapes[f"{at}.self_attn.{name}.weight"] = shape
        if index in routed:
            shapes[f"{at}.moe.gate.weight"] = (count, width)
            shapes |= {key: (count, *it) for key, it in part(f"{at}.moe", inner).items()}
            shapes |= part(f"{at}.share_expert", config["share_expert_dim"])
        else:
            shapes |= part(f"{at}.mlp", config["intermediate_size"])
    return shapes


def routed_sum(
    y: torch.Tensor, shares: torch.Tensor, chosen: torch.Tensor, parts: list[Tensors]
) -> torch.Tensor:
    """What the chosen experts make of y, weighed: each has `gate`, `up` and `down`."""
    made = torch.zeros_like(y)
    for expert, part in enumerate(parts):
        share = (shares * (chosen == expert)).sum(-1, keepdim=True)
        inner = silu(linear(y, part["gate"])) * linear(y, part["up"])
        made = made + share * linear(inner, part["down"])
    return made


def step3(tensors: Tensors, config: Config, ids: torch.Tensor) -> torch.Tensor:
    """Queries of all heads from a normed few numbers; experts by their share of all, beside one for all tokens."""
    eps, size = config["rms_norm_eps"], config["head_dim"]
    x = tensors["model.embed_tokens.weight"][ids]
    for index in range(config["num_hidden_layers"]):
        layer = f"model.layers.{index}"
        own = {
            key.removeprefix(f"{layer}."): it for key, it in tensors.items() if f"{layer}." in key
        }
        y = rms(x, own["input_layernorm.weight"], eps)
        few, k, v = (linear(y, own[f"self_attn.{name}_proj.weight"]) for name in "qkv")
        few = rms(few, own["self_attn.inter_norm.weight"], eps)
        q = linear(few, own["self_attn.wq.weight"]).unflatten(-1, (-1, size))
        q, k = (halves_turned(it, config["rope_theta"]) for it in (q, k[:, None]))
        x = x + linear(attended(q, k, v[:, None]), own["self_attn.o_proj.weight"])
        y = rms(x, own["post_attention_layernorm.weight"], eps)
        if "moe.gate.weight" not in own:
            x = x + llama_part(y, own, "mlp")
            continue
        shares, chosen = linear(y, own["moe.gate.weight"]).softmax(-1).topk(config["moe_top_k"])
        names = ("gate", "up", "down")
        parts = [
            {name: own[f"moe.{name}_proj.weight"][expert] for name in names}
            for expert in range(config["moe_num_experts"])
        ]
        x = x + routed_sum(y, shares, chosen, parts) + llama_part(y, own, "share_expert")
    return head(x, tensors, config)


def arctic_shapes(config: Config) -> Shapes:
    """Llama's names but for the parts behind attention, whose matrices are w1, w3 and w2."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    shapes = {key: it for key, it in llama_shapes(config).items() if ".mlp." not in key}

    def part(at: str, inner: int) -> Shapes:
        sizes = {"w1": (inner, width), "w3": (inner, width), "w2": (width, inner)}
        return {f"{at}.{name}.weight": size for name, size in sizes.items()}

    for index in range(config["num_hidden_layers"]):
        at, block = f"model.layers.{index}", f"model.layers.{index}.block_sparse_moe"
        if (index + 1) % config["moe_layer_frequency"]:
            shapes |= part(f"{block}.mlp", inner)
            continue
        shapes[f"{block}.gate.weight"] = (config["num_local_experts"], width)
        for expert in range(config["num_local_experts"]):
            shapes |= part(f"{block}.experts.{expert}", inner)
        if config["parallel_attn_mlp_res"]:
            shapes |= part(f"{at}.residual_mlp", width)
            shapes[f"{at}.residual_layernorm.weight"] = (width,)
    return shapes


def arctic(tensors: Tensors, config: Config, ids: torch.Tensor) -> torch.Tensor:
    """Experts read what came into the layer, and a dense part what is behind attention; both are added."""
    eps, count = config["rms_norm_eps"], config["num_experts_per_tok"]
    act = {"silu": silu, "gelu": torch.nn.functional.gelu}[config.get("hidden_act", "silu")]
    x = tensors["model.embed_tokens.weight"][ids]

    def part(y: torch.Tensor, at: str) -> torch.Tensor:
        first, other, back = (tensors[f"{at}.{name}.weight"] for name in ("w1", "w3", "w2"))
        return linear(act(linear(y, first)) * linear(y, other), back)

    for index in range(config["num_hidden_layers"]):
        at, came = f"model.layers.{index}", x
        block = f"{at}.block_sparse_moe"
        y = rms(x, tensors[f"{at}.input_layernorm.weight"], eps)
        q, k, v = llama_heads(y, tensors, at, config)
        q, k = (halves_turned(it, config["rope_theta"]) for it in (q, k))
        x = x + linear(attended(q, k, v), tensors[f"{at}.self_attn.o_proj.weight"])
        beside = tensors.get(f"{at}.residual_layernorm.weight")
        y = rms(
            x if beside is None else came, tensors[f"{at}.post_attention_layernorm.weight"], eps
        )
        if beside is not None:
            x = x + part(rms(x, beside, eps), f"{at}.residual_mlp")
        if f"{block}.gate.weight" not in tensors:
            x = x + part(y, f"{block}.mlp")
            continue
        shares, chosen = linear(y, tensors[f"{block}.gate.weight"]).softmax(-1).topk(count)
        if count > 1:
            shares = shares / shares.sum(-1, keepdim=True)
        for expert in range(config["num_local_experts"]):
            share = (shares * (chosen == expert)).sum(-1, keepdim=True)
            x = x + share * part(y, f"{block}.experts.{expert}")
    return head(x, tensors, config)


def plamo2_attends(config: Config, index: int) -> bool:
    """The middle one of each `mamba_step` layers, or the last of a few."""
    step, count = config["mamba_step"], config["num_hidden_layers"]
    return index == count - 1 if count <= step // 2 else index % step == step // 2


def plamo2_shapes(config: Config) -> Shapes:
    """Attention with a weight for each number of each head of q and k, or a state-space mixer."""
    width, inner, size = (
        config[key] for key in ("hidden_size", "intermediate_size", "hidden_size_per_head")
    )
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    count, state, rank = config["mamba_num_heads"], config["mamba_d_state"], max(64, width // 16)
    shapes = embedded_shapes(config)
    for index in range(config["num_hidden_layers"]):
        at = f"model.layers.layers.{index}"
        for name in ("pre_mixer", "post_mixer", "pre_mlp", "post_mlp"):
            shapes[f"{at}.{name}_norm.weight"] = (width,)
        shapes[f"{at}.mlp.gate_up_proj.weight"] = (2 * inner, width)
        shapes[f"{at}.mlp.down_proj.weight"] = (width, inner)
        attention: Shapes = {
            "qkv_proj.weight": ((heads + 2 * keys) * size, width),
            "o_proj.weight": (width, heads * size),
            "q_weight": (heads, size),
            "k_weight": (keys, size),
        }
        mamba: Shapes = {
            "in_proj.weight": (2 * count * size, width),
            "conv1d.weight": (count * size, 1, config["mamba_d_conv"]),
            "bcdt_proj.weight": (rank + 2 * state, count * size),
            "dt_proj.weight": (count, rank),
            "out_proj.weight": (width, count * size),
            "dt_norm_weight": (rank,),
            "B_norm_weight": (state,),
            "C_norm_weight": (state,),
        }
        mamba |= dict.fromkeys(("A_log", "D", "dt_bias"), (count,))
        own = attention if plamo2_attends(config, index) else mamba
        shapes |= {f"{at}.mixer.{name}": shape for name, shape in own.items()}
    return shapes


def plamo2_states(y: torch.Tensor, own: Tensors, config: Config) -> torch.Tensor:
    """A convolution, then a state of each head, token by token; steps and vectors are normed."""
    eps, heads, state = (
        config[key] for key in ("rms_norm_eps", "mamba_num_heads", "mamba_d_state")
    )
    both = linear(y, own["in_proj.weight"]).unflatten(-1, (heads, -1))
    gate, x = both.chunk(2, dim=-1)
    kernel = own["conv1d.weight"]
    early = torch.zeros(kernel.shape[-1] - 1, kernel.shape[0])
    seen = torch.cat((early, x.flatten(1))).unfold(0, kernel.shape[-1], 1)
    x = silu((seen * kernel[:, 0]).sum(-1))
    made = linear(x, own["bcdt_proj.weight"])
    write, read, step = (
        rms(part, own[f"{name}_norm_weight"], eps)
        for name, part in zip(
            ("B", "C", "dt"),
            made.split((state, state, made.shape[-1] - 2 * state), dim=-1),
            strict=True,
        )
    )
    steps = torch.nn.functional.softplus(linear(step, own["dt_proj.weight"]) + own["dt_bias"])
    decay, x = -own["A_log"].exp(), x.unflatten(-1, (heads, -1))
    kept = torch.zeros(heads, x.shape[-1], state)
    found = []
    for place in range(len(y)):
        kept = kept * (steps[place] * decay).exp()[:, None, None]
        kept = kept + (steps[place][:, None] * x[place])[..., None] * write[place]
        found.append(kept @ read[place] + own["D"][:, None] * x[place])
    return linear((torch.stack(found) * silu(gate)).flatten(1), own["out_proj.weight"])


def plamo2(tensors: Tensors, config: Config, ids: torch.Tensor) -> torch.Tensor:
    """Norms before and after each part, around 1, a fifth and 5^-1.5; a window sees one token more than it says."""
    eps, size = config["rms_norm_eps"], config["hidden_size_per_head"]
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    x = tensors["model.embed_tokens.weight"][ids]
    for index in range(config["num_hidden_layers"]):
        start = f"model.layers.layers.{index}."
        layer = {key.removeprefix(start): it for key, it in tensors.items() if start in key}
        own = {key.removeprefix("mixer."): it for key, it in layer.items() if "mixer." in key}
        y = rms(x, 1 + layer["pre_mixer_norm.weight"], eps)
        if plamo2_attends(config, index):
            rows = linear(y, own["qkv_proj.weight"]).unflatten(-1, (-1, size))
            q, k, v = rows.split((heads, keys, keys), dim=1)
            q, k = rms(q, own["q_weight"], 1e-6), rms(k, own["k_weight"], 1e-6)
            whole = index in config.get("full_attention_idx", ())
            theta = config["rope_theta"]
            theta = theta if whole else config.get("rope_local_theta", theta)
            q, k = halves_turned(q, theta), halves_turned(k, theta)
            window = None if whole else config["attention_window_size"] + 1
            made = linear(attended(q, k, v, window=window), own["o_proj.weight"])
        else:
            made = plamo2_states(y, own, config)
        x = x + rms(made, 1 / 5 + layer["post_mixer_norm.weight"], eps)
        y = rms(x, 1 + layer["pre_mlp_norm.weight"], eps)
        gate, up = linear(y, layer["mlp.gate_up_proj.weight"]).chunk(2, dim=-1)
        made = linear(silu(gate) * up, layer["mlp.down_proj.weight"])
        x = x + rms(made, 5**-1.5 + layer["post_mlp_norm.weight"], eps)
    weight = tensors.get("lm_head.weight", tensors["model.embed_tokens.weight"])
    return linear(rms(x, 1 + tensors["model.norm.weight"], eps), weight)


def step3_vl_shapes(config: Config) -> Shapes:
    """Those of the text, and some of the tower."""
    tower = {
        "vision_model.embeddings.class_embedding": (32,),
        "vit_large_projector.weight": (64, 32),
    }
    return step3_shapes(config["text_config"]) | tower


def step3_vl(tensors: Tensors, config: Config, ids: torch.Tensor) -> torch.Tensor:
    """What the decoder makes of text alone."""
    return step3(tensors, config["text_config"], ids)


PLAIN_MODELS: dict[str, PlainModel] = FIRST_MODELS | {
    "ArcticForCausalLM": PlainModel(arctic_shapes, arctic),
    "Plamo2ForCausalLM": PlainModel(plamo2_shapes, plamo2),
    "Step1ForCausalLM": PlainModel(step1_shapes, step1),
    "Step3VLForConditionalGeneration": PlainModel(step3_vl_shapes, step3_vl),
    "Step3TextForCausalLM": PlainModel(step3_shapes, step3),
}
