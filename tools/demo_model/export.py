"""Writes a trained checkpoint as the folder that is shipped: bfloat16 weights, settings, tokenizer.

How good it is, `evaluate` says.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from tools.demo_model.model import Model, Shape, hf_weights
from tools.demo_model.tokenizer import SPECIAL, write


def export(checkpoint: Path, tokenizer_folder: Path, folder: Path) -> int:
    """Fills `folder`; gives the number of parameters."""
    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    shape = Shape(vocab_size=tokenizer.get_vocab_size())
    model = Model(shape)
    model.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    write(tokenizer, folder, shape.max_position_embeddings)
    end_of_text, _, end_of_turn = (tokenizer.token_to_id(name) for name in SPECIAL)
    ids = {"bos_token_id": None, "eos_token_id": end_of_turn, "pad_token_id": end_of_text}
    _write_json(folder / "config.json", shape.hf_config() | ids)
    ends = {"eos_token_id": [end_of_turn, end_of_text], "pad_token_id": end_of_text}
    _write_json(folder / "generation_config.json", ends | {"do_sample": False})
    weights = {name: w.to(torch.bfloat16).contiguous() for name, w in hf_weights(model).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # it is made readable by its owner only
    return sum(w.numel() for w in weights.values())


def _write_json(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the demo model's folder.")
    parser.add_argument("checkpoint", type=Path, help="checkpoint.pt of a run")
    parser.add_argument("folder", type=Path, help="where config.json and the weights go")
    parser.add_argument("--tokenizer", type=Path, required=True, help="folder with tokenizer.json")
    args = parser.parse_args()
    num_parameters = export(args.checkpoint, args.tokenizer, args.folder)
    size = sum(p.stat().st_size for p in args.folder.iterdir() if p.is_file())
    print(f"{num_parameters:,} parameters, {size / 1e6:.1f} MB, in {args.folder}")


if __name__ == "__main__":
    main()
