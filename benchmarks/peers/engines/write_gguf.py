"""Writes a checkpoint in Hugging Face format as a GGUF file: BF16, Q8_0 or Q4_0, without a vocabulary.

Run by the Python of llama.cpp's environment. Serves the random checkpoints of the comparison: qwen3,
llama and qwen3_moe with plain rotary positions and tied embeddings.
"""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

KINDS = {"bf16": Kind.BF16, "int8": Kind.Q8_0, "int4": Kind.Q4_0}
FILE_TYPES = {
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
    "int8": gguf.LlamaFileType.MOSTLY_Q8_0,
    "int4": gguf.LlamaFileType.MOSTLY_Q4_0,
}
ARCHITECTURES = {"qwen3": "qwen3", "llama": "llama", "qwen3_moe": "qwen3moe"}

LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
}
EXPERT_NAMES = {
    "gate_proj": "ffn_gate_exps",
    "up_proj": "ffn_up_exps",
    "down_proj": "ffn_down_exps",
}


class Checkpoint:
    """One safetensors file of bfloat16, mapped; read without torch, which numpy needs no help from."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        self._entries = header
        self._bytes = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def float32(self, name: str) -> np.ndarray:
        """A tensor in its shape. Raises ValueError for a number format other than BF16."""
        entry = self._entries[name]
        if entry["dtype"] != "BF16":
            raise ValueError(f"{name} is {entry['dtype']}; only BF16 is read")
        begin, end = entry["data_offsets"]
        halves = self._bytes[begin:end].view(np.uint16).astype(np.uint32)
        return (halves << 16).view(np.float32).reshape(entry["shape"])


def in_pairs(weight: np.ndarray, num_heads: int) -> np.ndarray:
    """Rows of a llama projection [H*D, C] reordered from halves to pairs, as ggml rotates that family."""
    rows, width = weight.shape
    halves = weight.reshape(num_heads, 2, rows // num_heads // 2, width)
    return halves.swapaxes(1, 2).reshape(rows, width)


def write_header(writer: gguf.GGUFWriter, config: dict[str, Any], number_format: str) -> None:
    """The keys that llama.cpp reads of these families."""
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(FILE_TYPES[number_format])
    writer.add_tokenizer_model("none")
    if "num_experts" in config:
        writer.add_expert_count(config["num_experts"])
        writer.add_expert_used_count(config["num_experts_per_tok"])
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])


def write_tensor(writer: gguf.GGUFWriter, name: str, values: np.ndarray, kind: Kind) -> None:
    """Norms and routers in float32, matrices in `kind`."""
    if values.ndim == 1 or "ffn_gate_inp" in name:
        kind = Kind.F32
    data = np.ascontiguousarray(values, dtype=np.float32)
    data = data if kind == Kind.F32 else gguf.quants.quantize(data, kind)
    writer.add_tensor(name, data, raw_dtype=kind)


def write_layer(
    writer: gguf.GGUFWriter, source: Checkpoint, config: dict[str, Any], layer: int, kind: Kind
) -> None:
    """All tensors of one decoder layer; experts stacked to [E, F, C]."""
    prefix = f"model.layers.{layer}"
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for theirs, ours in LAYER_NAMES.items():
        name = f"{prefix}.{theirs}.weight"
        if name not in source:
            continue
        values = source.float32(name)
        if config["model_type"] == "llama" and ours in heads:
            values = in_pairs(values, heads[ours])
        write_tensor(writer, f"blk.{layer}.{ours}.weight", values, kind)
    for theirs, ours in EXPERT_NAMES.items():
        names = [
            f"{prefix}.mlp.experts.{expert}.{theirs}.weight"
            for expert in range(config.get("num_experts", 0))
        ]
        if names:
            stacked = np.stack([source.float32(name) for name in names])
            write_tensor(writer, f"blk.{layer}.{ours}.weight", stacked, kind)


def main() -> None:
    """Writes the file under another name and renames it when it is whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, type=Path, help="the checkpoint's folder")
    parser.add_argument("--format", required=True, choices=sorted(KINDS))
    parser.add_argument("--out", required=True, type=Path)
    flags = parser.parse_args()
    config = json.loads((flags.model / "config.json").read_text())
    source, kind = Checkpoint(flags.model / "model.safetensors"), KINDS[flags.format]
    flags.out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = flags.out.with_suffix(".part")
    writer = gguf.GGUFWriter(str(unfinished), ARCHITECTURES[config["model_type"]])
    write_header(writer, config, flags.format)
    # the matrix of embeddings is the output matrix too; four bits would tell there first
    embedding_kind = Kind.Q8_0 if kind == Kind.Q4_0 else kind
    embeddings = source.float32("model.embed_tokens.weight")
    write_tensor(writer, "token_embd.weight", embeddings, embedding_kind)
    write_tensor(writer, "output_norm.weight", source.float32("model.norm.weight"), kind)
    for layer in range(config["num_hidden_layers"]):
        write_layer(writer, source, config, layer, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    unfinished.rename(flags.out)


if __name__ == "__main__":
    main()
