"""Tokenizers in GGUF files: the same ids as the library that made them, and refusals by name."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from quire.frontend.tokenizer import Tokenizer
from quire.models.loading.gguf.folder import folder_of
from quire.protocol.errors import ModelLoadError
from tests.models import harness
from tests.models.case import COMMON
from tests.models.gguf_writer import Kind, write_gguf

WORDS = (Path(__file__).parents[2] / "docs" / "design.md").read_text()[:20_000]
TEXTS = (
    "Hello, world! It's 12345 o'clock.",
    "  two spaces\n\n  and\ttabs \r\n",
    "naïve café — 東京 🙂 ½",
    "def f(x):\n    return x**2  # square",
    "We'll see; they've DONE it 3.14159 times",
    "",
    " ",
)
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}|", r"|\p{N}{1,3}|")
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-\u309f\u30a0-\u30ff]+",
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+",
)
DEEPSEEK_CODER = ("[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-\ud7ff]+", r"\p{N}")
"""As the models' own files have them."""
SIZES = COMMON | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "head_dim": 32}


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """`made(vocabulary size, more)`: the folder of a GGUF file with what `more` adds."""
    monkeypatch.setenv("QUIRE_CACHE_DIR", str(tmp_path / "cache"))

    def make(size: int, more: Callable[[Any], None]) -> Path:
        config = SIZES | {"vocab_size": size, "intermediate_size": 64}
        folder = harness.write_checkpoint(tmp_path / "plain", config)
        return folder_of(write_gguf(folder, tmp_path / "m.gguf", lambda _: Kind.F32, more))

    return make


def byte_level(pattern: str | tuple[str, ...] | None) -> tokenizers.Tokenizer:
    raw = tokenizers.Tokenizer(models.BPE(ignore_merges=pattern == LLAMA3))
    raw.normalizer = normalizers.NFC() if pattern == QWEN2 else None
    parts: list[Any] = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None)]
    if pattern is not None:
        several = (pattern,) if isinstance(pattern, str) else pattern
        cuts = [pre_tokenizers.Split(tokenizers.Regex(one), "isolated") for one in several]
        parts = [*cuts, *parts]
    raw.pre_tokenizer = pre_tokenizers.Sequence(parts)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=["<|end|>", "<|im_start|>"], initial_alphabet=alphabet
    )
    raw.train_from_iterator([WORDS], trainer)
    return raw


def add_bytes(raw: tokenizers.Tokenizer, name: str) -> Callable[[Any], None]:
    model = json.loads(raw.to_str())["model"]

    def more(writer: Any) -> None:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_list(sorted(model["vocab"], key=model["vocab"].get))
        writer.add_token_types([3, 3] + [1] * (len(model["vocab"]) - 2))
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
        writer.add_eos_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_add_bos_token(name == "llama-bpe")
        writer.add_chat_template("{{ messages[0].content }}")

    return more


def test_gemma_4_merges_whole_texts(made: Callable[..., Path]) -> None:
    """As its tokenizer.json has it: blanks made visible, no cuts, bytes for unknown characters."""
    raw = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    raw.normalizer = normalizers.Replace(" ", "\u2581")
    raw.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=special, max_token_length=16)
    raw.train_from_iterator(WORDS.split("\n"), trainer)
    model = json.loads(raw.to_str())["model"]
    names = sorted(model["vocab"], key=model["vocab"].get)

    def more(writer: Any) -> None:
        writer.add_tokenizer_model("gemma4")
        writer.add_token_list(names)
        writer.add_token_scores([-1000.0] * len(names))
        writer.add_token_types([3] * 4 + [6] * 256 + [1] * (len(names) - 260))
        writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
        writer.add_bos_token_id(2)
        writer.add_eos_token_id(1)
        writer.add_add_space_prefix(False)
        writer.add_add_bos_token(True)

    folder = made(len(names), more)
    whole = json.loads(raw.to_str())  # bytes are no special tokens in its file
    whole["added_tokens"] = [one for one in whole["added_tokens"] if one["id"] < 4]
    plain = tokenizers.Tokenizer.from_str(json.dumps(whole))
    ours = Tokenizer.load(folder)
    for text in TEXTS:
        ids = plain.encode(text).ids
        assert ours.encode(text) == [2, *ids]
        assert ours.decode(ids, False) == plain.decode(ids, False)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("qwen2", QWEN2),
        ("llama-bpe", LLAMA3),
        ("gpt-2", None),
        ("lfm2", LLAMA3),
        ("deepseek-v3", DEEPSEEK_V3),
        ("deepseek-coder", DEEPSEEK_CODER),
    ],
)
def test_byte_level_vocabularies(
    name: str, pattern: str | tuple[str, ...] | None, made: Callable[..., Path]
) -> None:
    raw = byte_level(pattern)
    folder = made(raw.get_vocab_size(), add_bytes(raw, name))
    ours = Tokenizer.load(folder)
    for text in (*TEXTS, "<|im_start|>user<|end|>"):
        assert ours.encode(text, False) == raw.encode(text).ids
        assert ours.decode(ours.encode(text, False), False) == raw.decode(
            raw.encode(text).ids, False
        )
    assert ours.encode("a") == [1] * (name == "llama-bpe") + raw.encode("a").ids
    assert (ours.eos_token, ours.bos_token) == ("<|end|>", "<|im_start|>")
    config = json.loads((folder / "config.json").read_text())
    assert config["eos_token_id"] == [0]
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == "{{ messages[0].content }}"


@pytest.mark.parametrize("prefix", [True, False])
def test_pieces_with_scores(prefix: bool, made: Callable[..., Path]) -> None:
    import sentencepiece as library

    trained = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS.splitlines()), model_writer=trained, model_type="bpe",
        vocab_size=900, byte_fallback=True, normalization_rule_name="identity", pad_id=-1,
        add_dummy_prefix=prefix, remove_extra_whitespaces=False, user_defined_symbols=["<tool>"],
        minloglevel=2,
    )  # fmt: skip
    theirs = library.SentencePieceProcessor(model_proto=trained.getvalue())
    kinds = {"IsUnknown": 2, "IsControl": 3, "IsByte": 6, "IsUnused": 5}

    def more(writer: Any) -> None:
        numbers = range(theirs.vocab_size())
        writer.add_tokenizer_model("llama")
        writer.add_token_list([theirs.IdToPiece(n) for n in numbers])
        writer.add_token_scores([theirs.GetScore(n) for n in numbers])
        found = [next((k for f, k in kinds.items() if getattr(theirs, f)(n)), 1) for n in numbers]
        found[theirs.PieceToId("<tool>")] = 4
        writer.add_token_types(found)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_unk_token_id(0)
        writer.add_add_space_prefix(prefix)

    ours = Tokenizer.load(made(theirs.vocab_size(), more))
    for text in TEXTS:
        assert ours.encode(text, False) == theirs.encode(text)
        assert ours.decode(theirs.encode(text), True) == theirs.decode(theirs.encode(text))
    assert ours.encode("a")[0] == 1
    tool = ours.raw.token_to_id("<tool>")
    assert tool in ours.encode("x<tool>y", False)


def test_a_tokenizer_json_in_the_file_is_taken(made: Callable[..., Path]) -> None:
    raw = byte_level(r"\S+|\s+")

    def more(writer: Any) -> None:
        add_bytes(raw, "made-up")(writer)
        writer.add_string("tokenizer.huggingface.json", raw.to_str())

    ours = Tokenizer.load(made(raw.get_vocab_size(), more))
    assert ours.encode(TEXTS[0], False) == raw.encode(TEXTS[0]).ids


def test_an_unknown_rule_or_kind_is_refused_and_can_be_left_out(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    raw = byte_level(None)
    with pytest.raises(ModelLoadError, match=r"'made-up', is not known; give .* --tokenizer"):
        made(raw.get_vocab_size(), add_bytes(raw, "made-up"))
    folder = folder_of(tmp_path / "m.gguf", with_tokenizer=False)
    assert not (folder / "tokenizer.json").exists()

    def more(writer: Any) -> None:
        writer.add_tokenizer_model("rwkv")

    with pytest.raises(ModelLoadError, match="of the kind 'rwkv'; read are gpt2, llama"):
        made(97, more)
