"""Checkpoints without tokenizer.json: the same ids as Transformers, or the library that made the files, gives."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, LlamaTokenizer

from quire.engine.grammar.compiler import Compiler
from quire.frontend.tokenizer import Tokenizer
from quire.models.loading.sentencepiece import read_pieces
from quire.models.loading.tokenizer_files import tokenizer_file
from quire.protocol.errors import ModelLoadError
from quire.protocol.request import GrammarSpec

WORDS = (Path(__file__).parents[2] / "docs" / "design.md").read_text()[:20_000]
TEXTS = (
    "Hello, world! It's 12345 o'clock.",
    "  two spaces\n\n  and\ttabs \r\n",
    "naïve café — 東京 🙂 ½ ﬁ",
    "def f(x):\n    return x**2  # square",
    "",
    " ",
    "The scheduler; the requests",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("QUIRE_CACHE_DIR", str(tmp_path / "cache"))
    yield tmp_path / "cache"


def write(folder: Path, **files: Any) -> Path:
    """A folder with JSON files, by their names without the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vocab.json and merges.txt."""
    raw = tokenizers.Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    raw.train_from_iterator([WORDS], trainer)
    folder = tmp_path_factory.mktemp("bytes")
    raw.model.save(str(folder))
    return folder


OPT = {"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True, "bos_token": "</s>"}
OPT |= {"eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>", "add_prefix_space": False}
LATER = {
    str(700 + place): {"content": text, "special": special, "normalized": False, "lstrip": False,
                       "rstrip": False, "single_word": False}
    for place, (text, special) in enumerate((("<|im_start|>", True), ("<tool>", False)))
}  # fmt: skip


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "GPT2Tokenizer"},
        {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True},
        OPT,
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "eos_token": "<|im_start|>",
            "added_tokens_decoder": LATER,
        },
        {"tokenizer_class": "RobertaTokenizer"},
    ],
    ids=lambda one: f"{one['tokenizer_class']}-{len(one)}",
)
def test_byte_pairs_are_read_as_transformers_reads_them(
    byte_level: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = write(Path(shutil.copytree(byte_level, tmp_path / "m")), tokenizer_config=settings)
    assert_same(Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder))


def assert_same(ours: Tokenizer, theirs: Any) -> None:
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    assert ours.vocab_size == max(theirs.get_vocab().values()) + 1
    special = "".join(theirs.all_special_tokens)
    for text in (*TEXTS, f"a{special}b {special} c", "x<tool>y"):
        for adds in (True, False):
            ids = ours.encode(text, adds)
            assert ids == theirs.encode(text, add_special_tokens=adds), (text, adds)
            for skip in (True, False):
                expected = theirs.decode(
                    ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
                )
                assert ours.decode(ids, skip) == expected


def test_word_pieces_are_read_as_transformers_reads_them(tmp_path: Path) -> None:
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "the",
        "a",
        "##a",
        "##s",
        "request",
        "hello",
    ]
    words += [*"bcdefghijklmnopqrstuvwxyz0123456789.,;!'", *(f"##{one}" for one in "bcdefg"), "東"]
    for name, settings in (("small", {}), ("large", {"do_lower_case": False})):
        folder = write(
            tmp_path / name, tokenizer_config={"tokenizer_class": "BertTokenizer", **settings}
        )
        (folder / "vocab.txt").write_text("\n".join(words) + "\n")
        ours, theirs = Tokenizer.load(folder), AutoTokenizer.from_pretrained(folder)
        for text in (*TEXTS, "Hello[SEP] requests café 東京"):
            assert ours.encode(text) == theirs.encode(text), (name, text)


def sentencepieces(folder: Path, **how: Any) -> tuple[Path, sentencepiece.SentencePieceProcessor]:
    """A folder with a tokenizer.model as Llama 2's is made, and the library that reads it."""
    made = io.BytesIO()
    asked = {
        "model_type": "bpe", "vocab_size": 700, "byte_fallback": True, "normalization_rule_name": "identity",
        "remove_extra_whitespaces": False, "user_defined_symbols": ["<tool>"], "split_digits": True, **how,
    }  # fmt: skip
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS.splitlines()), model_writer=made, minloglevel=2, **asked
    )
    write(folder, tokenizer_config={"tokenizer_class": "LlamaTokenizer"})
    (folder / "tokenizer.model").write_bytes(made.getvalue())
    return folder, sentencepiece.SentencePieceProcessor(model_proto=made.getvalue())


@pytest.mark.parametrize(
    "how",
    [
        {}, {"add_dummy_prefix": False}, {"model_type": "unigram"},
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
    ],
    ids=str,
)  # fmt: skip
def test_pieces_are_those_of_the_library(tmp_path: Path, how: dict[str, Any]) -> None:
    folder, theirs = sentencepieces(tmp_path / "m", **how)
    ours = Tokenizer.load(folder)
    assert ours.vocab_size == theirs.GetPieceSize()
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_id(), theirs.eos_id())
    joins = how.get("remove_extra_whitespaces", False)
    prefix = how.get("add_dummy_prefix", True)
    for text in (*TEXTS, "x<tool>y"):
        if "<tool>" in text if joins else prefix and text.startswith(" "):
            continue  # where Transformers differs from the library; the next test has these
        ids = ours.encode(text, False)
        assert ids == theirs.EncodeAsIds(text), text
        assert ours.encode(text) == [theirs.bos_id(), *ids]
        assert ours.decode(ids) == theirs.DecodeIds(ids)
    assert ours.encode("<s>user", False)[0] == theirs.bos_id()


def test_byte_pairs_of_pieces_are_as_in_transformers(tmp_path: Path) -> None:
    folder, _ = sentencepieces(tmp_path / "m")
    model = json.loads(tokenizer_file(folder).read_text())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    theirs = LlamaTokenizer(vocab=model["vocab"], merges=merges, add_bos_token=True)
    ours = Tokenizer.load(folder)
    for text in (*TEXTS, "<s>user</s> more"):
        ids = ours.encode(text)
        assert ids == theirs.encode(text), text
        assert ours.decode(ids) == theirs.decode(ids)


def test_every_field_of_a_model_is_read(tmp_path: Path) -> None:
    folder, theirs = sentencepieces(tmp_path / "m")
    found = read_pieces(folder / "tokenizer.model")
    for number, (text, score, _) in enumerate(found.pieces):
        assert (text, score) == (theirs.IdToPiece(number), theirs.GetScore(number))


def test_it_is_made_once_and_anew_for_other_files(byte_level: Path, tmp_path: Path) -> None:
    folder = write(Path(shutil.copytree(byte_level, tmp_path / "m")), tokenizer_config=OPT)
    first = tokenizer_file(folder)
    written = first.stat().st_mtime_ns
    assert tokenizer_file(folder) == first and first.stat().st_mtime_ns == written
    write(folder, added_tokens={"<more>": 700})
    second = tokenizer_file(folder)
    assert second != first and Tokenizer.load(folder).encode("<more>", False) == [700]
    shutil.copy(second, folder / "tokenizer.json")
    assert tokenizer_file(folder) == folder / "tokenizer.json"


def test_constraints_have_it_too(byte_level: Path, tmp_path: Path) -> None:
    folder = write(Path(shutil.copytree(byte_level, tmp_path / "m")), tokenizer_config=OPT)
    compiled = Compiler("guidance", folder / "tokenizer.json", 700, (2,)).compile(
        GrammarSpec(kind="regex", text="[0-9]{2}")
    )
    matcher = compiled.matcher()
    matcher.advance(Tokenizer.load(folder).encode("12", False))
    assert matcher.may_end


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda f: write(f, tokenizer_config={"tokenizer_class": "OddTokenizer"}),
            "'OddTokenizer'",
        ),
        (lambda f: (f / "tokenizer_config.json").unlink(), "without a tokenizer_config.json"),
        (lambda f: (f / "merges.txt").unlink(), "not both"),
        (lambda f: (f / "merges.txt").write_text("#version\na b c"), "line 2"),
        (lambda f: (f / "vocab.json").write_text("[]"), "must be a JSON object"),
        (lambda f: (f / "vocab.json").write_text("{"), "is not JSON"),
        (lambda f: write(f, added_tokens={"<more>": 900}), "900"),
        (lambda f: (f / "tokenizer.model").write_bytes(b"\xff" * 50), "no sentencepiece model"),
        (lambda f: (f / "tokenizer.model").write_bytes(b"IQ== 0\n"), "no sentencepiece model"),
        (lambda f: (f / "tokenizer.model").write_bytes(b""), "holds 0 pieces"),
        (lambda f: [one.unlink() for one in f.iterdir()], "no tokenizer.json"),
    ],
)
def test_what_cannot_be_read_is_named(
    byte_level: Path, tmp_path: Path, spoil: Any, said: str
) -> None:
    folder = write(Path(shutil.copytree(byte_level, tmp_path / "m")), tokenizer_config=OPT)
    spoil(folder)
    with pytest.raises(ModelLoadError, match=said):
        Tokenizer.load(folder)
