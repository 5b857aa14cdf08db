"""Small tokenizers of the kinds that checkpoints have, as folders on disk.

Byte-level BPE comes from `tests.checkpoints`; here is the SentencePiece-like kind.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, processors

WORDS = ["the", "then", "cat", "sat", "on", "mat", "a"]


def sentencepiece_like(folder: Path, *, end: bool = False, **settings: Any) -> Path:
    """A BPE with ▁ for spaces and one token for each byte, as Llama 2 has; BOS before a text, EOS after if `end`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256):
        vocab[f"<0x{byte:02X}>"] = len(vocab)
    for char in "▁abcdefghijklmnopqrstuvwxyzé.":
        vocab[char] = len(vocab)
    merges: list[tuple[str, str]] = []
    for word in ["▁" + word for word in WORDS]:
        piece = word[0]
        for char in word[1:]:
            if (piece, char) not in merges:
                merges.append((piece, char))
            piece += char
            vocab.setdefault(piece, len(vocab))
    made = Tokenizer(
        models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>" if end else "<s> $A",
        pair="<s> $A <s> $B",
        special_tokens=[("<s>", 1), ("</s>", 2)],
    )
    made.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "model_max_length": 10**30,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config | settings))
    return folder
