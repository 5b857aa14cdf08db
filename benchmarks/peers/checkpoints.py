"""Checkpoints of real shapes with random weights, in Hugging Face format, and a tokenizer for them.

Speed depends on shapes, not on what was learned, so nothing is downloaded. Forms for other engines are
`conversion`'s.
"""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

TOKENIZER_SIZE = 16_000
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
EMBEDDING_SCALE = 0.02
"""Standard deviation of the embeddings; norms are 1, and every other matrix keeps the size of its input.

So the layers outweigh the embedding that they are added to. With 0.02 everywhere the likeliest next token is
the present one for ever, and two engines that agree on that have shown nothing.
"""


@dataclass(frozen=True)
class Shape:
    """The sizes of a checkpoint. `num_experts` 0 is a dense model; the embeddings are the output matrix.

    is_chained  whether its weights are those of `chained`, whose greedy answers are certain, or any.
    """

    kind: str
    width: int
    feed_forward: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    num_vocab: int
    max_len: int
    rope_theta: float
    norm_eps: float = 1e-6
    num_experts: int = 0
    num_chosen: int = 0
    expert_width: int = 0
    is_chained: bool = False

    @property
    def has_head_norms(self) -> bool:
        return self.kind.startswith("qwen3")


SHAPES = {
    "qwen3-0.6b": Shape("qwen3", 1024, 3072, 28, 16, 8, 128, 151_936, 40_960, 1e6),
    "qwen3-0.6b-chained": Shape(
        "qwen3", 1024, 3072, 28, 16, 8, 128, 151_936, 40_960, 1e6, is_chained=True
    ),
    "llama-1b": Shape("llama", 2048, 8192, 16, 32, 8, 64, 128_256, 8_192, 5e5, 1e-5),
    "qwen3-moe": Shape(
        "qwen3_moe", 1024, 3072, 12, 16, 4, 128, 151_936, 40_960, 1e6,
        num_experts=32, num_chosen=4, expert_width=512,
    ),
    "moe-64": Shape(
        "qwen3_moe", 1024, 3072, 24, 16, 8, 64, 32_000, 8_192, 1e6,
        num_experts=64, num_chosen=8, expert_width=384,
    ),
    "tiny": Shape("qwen3", 128, 256, 2, 4, 2, 64, 16_384, 8_192, 1e4),
    "tiny-llama": Shape("llama", 128, 256, 2, 4, 2, 64, 16_384, 8_192, 1e4),
    "tiny-moe": Shape(
        "qwen3_moe", 128, 256, 2, 4, 2, 64, 16_384, 8_192, 1e4,
        num_experts=8, num_chosen=2, expert_width=64,
    ),
}  # fmt: skip
"""qwen3-moe is the form of Qwen3-30B-A3B at a thirtieth of its size; moe-64 has many small experts;
llama-1b is Llama-3.2-1B without the stretching of its positions. The tiny
ones show in seconds that a peer runs and agrees."""

_CLASSES = {
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
}


def config_of(shape: Shape) -> dict[str, Any]:
    """The config.json of a shape."""
    config: dict[str, Any] = {
        "architectures": [_CLASSES[shape.kind]],
        "model_type": shape.kind,
        "vocab_size": shape.num_vocab,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": shape.max_len,
        "rope_theta": shape.rope_theta,
        "rms_norm_eps": shape.norm_eps,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": 0,
        "eos_token_id": 2,
    }
    if shape.num_experts:
        config |= {
            "num_experts": shape.num_experts,
            "num_experts_per_tok": shape.num_chosen,
            "moe_intermediate_size": shape.expert_width,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }
    return config


def feed_forward_tensors(shape: Shape, prefix: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of one layer's feed-forward part; matrices are [rows out, columns in]."""
    places, inner = [prefix], shape.feed_forward
    if shape.num_experts:
        yield f"{prefix}.gate.weight", (shape.num_experts, shape.width)
        places = [f"{prefix}.experts.{expert}" for expert in range(shape.num_experts)]
        inner = shape.expert_width
    for place in places:
        yield f"{place}.gate_proj.weight", (inner, shape.width)
        yield f"{place}.up_proj.weight", (inner, shape.width)
        yield f"{place}.down_proj.weight", (shape.width, inner)


def tensors_of(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of all tensors, in the checkpoint's order."""
    yield "model.embed_tokens.weight", (shape.num_vocab, shape.width)
    queries, keys = shape.num_heads * shape.head_size, shape.num_kv_heads * shape.head_size
    for layer in range(shape.num_layers):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", (shape.width,)
        yield f"{prefix}.self_attn.q_proj.weight", (queries, shape.width)
        yield f"{prefix}.self_attn.k_proj.weight", (keys, shape.width)
        yield f"{prefix}.self_attn.v_proj.weight", (keys, shape.width)
        yield f"{prefix}.self_attn.o_proj.weight", (shape.width, queries)
        if shape.has_head_norms:
            yield f"{prefix}.self_attn.q_norm.weight", (shape.head_size,)
            yield f"{prefix}.self_attn.k_norm.weight", (shape.head_size,)
        yield f"{prefix}.post_attention_layernorm.weight", (shape.width,)
        yield from feed_forward_tensors(shape, f"{prefix}.mlp")
    yield "model.norm.weight", (shape.width,)


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE learned from Python's own library, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=TOKENIZER_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library = Path(sysconfig.get_paths()["stdlib"])
    tokenizer.train([str(path) for path in sorted(library.glob("*.py"))], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    begin, _, end = SPECIAL_TOKENS
    described = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": begin,
        "eos_token": end,
        "pad_token": begin,
        "model_max_length": 8192,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=1))


def random_tensors(
    _: Shape, names: Iterator[tuple[str, tuple[int, ...]]], generator: torch.Generator
) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of `names`, float32: norms are 1, the rest are random."""
    import torch

    for name, size in names:
        scale = EMBEDDING_SCALE if "embed_tokens" in name else size[-1] ** -0.5
        is_norm = len(size) == 1
        yield name, torch.ones(size) if is_norm else torch.randn(size, generator=generator) * scale


def write_checkpoint(folder: Path, shape: Shape) -> None:
    """Writes config, tokenizer and weights in bfloat16; the weights last, under their name when whole."""
    import torch
    from safetensors.torch import save_file

    from benchmarks.peers.chained import chained_tensors

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_of(shape), indent=1))
    tokens = {"bos_token_id": 0, "eos_token_id": 2, "pad_token_id": 0}
    (folder / "generation_config.json").write_text(json.dumps(tokens, indent=1))
    write_tokenizer(folder)
    generator = torch.Generator().manual_seed(0)
    make = chained_tensors if shape.is_chained else random_tensors
    made = make(shape, tensors_of(shape), generator)
    tensors = {name: tensor.bfloat16() for name, tensor in made}
    unfinished = folder / "model.part"
    save_file(tensors, unfinished, metadata={"format": "pt"})
    unfinished.rename(folder / "model.safetensors")


def ensure_checkpoint(folder: Path, model: str) -> Path:
    """The checkpoint's folder, made if it is not there. Raises KeyError for an unknown model."""
    shape = SHAPES[model]
    if not (folder / "model.safetensors").exists():
        print(f"making {folder} ...", flush=True)
        write_checkpoint(folder, shape)
    return folder
