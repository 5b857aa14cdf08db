"""The tokenizer: equal to Transformers', its special tokens, bytes of single tokens, cheap refusal of long texts."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.frontend.prompts import truncated
from quire.frontend.tokenizer import PieceDecoder, Tokenizer
from quire.protocol.errors import InvalidRequestError, ModelLoadError
from tests import checkpoints
from tests.unit.tokenizers_built import sentencepiece_like

TEXTS = [
    "",
    "the cat sat on the mat",
    "  two  spaces \n\n and a tab\t",
    "Über den Fluss — 你好, 😀👩‍👩‍👧 é",
    "<|bos|>special<|eos|> tokens </s> in text",
    "naïve café 1234 ~~~ \x00 \x7f",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tokenizers")
    for name, add_bos in (("bytes", True), ("plain", False)):
        (root / name).mkdir()
        checkpoints.write_tokenizer(root / name, add_bos=add_bos)
    sentencepiece_like(root / "pieces")
    sentencepiece_like(root / "both", end=True, add_bos_token=False, add_eos_token=False)
    return {one.name: one for one in root.iterdir()}


@pytest.mark.parametrize("name", ["bytes", "plain", "pieces", "both"])
def test_encodes_and_decodes_like_transformers(folders: dict[str, Path], name: str) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(folders[name])
    ours = Tokenizer.load(folders[name])
    assert (ours.bos_token_id, ours.eos_token_id) == (theirs.bos_token_id, theirs.eos_token_id)
    for text in TEXTS:
        for special in (True, False):
            ids = ours.encode(text, special)
            assert ids == theirs.encode(text, add_special_tokens=special), (text, special)
            for skip in (True, False):
                assert ours.decode(ids, skip) == theirs.decode(
                    ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False
                )


@pytest.mark.parametrize("name", ["bytes", "pieces", "both"])
@pytest.mark.parametrize("keep", [1, 2, 3, 5, 100])
def test_truncation_keeps_special_tokens_like_transformers(
    folders: dict[str, Path], name: str, keep: int
) -> None:
    from transformers import AutoTokenizer

    ours = Tokenizer.load(folders[name])
    text = "the cat sat on the mat and then on a mat"
    special = sum(ours.special_tokens_around)
    if keep <= special:
        assert truncated(ours.encode(text), keep, "left", ours) == ours.encode(text)[-keep:]
        return
    for side in ("left", "right"):
        theirs = AutoTokenizer.from_pretrained(folders[name], truncation_side=side)
        expected = theirs.encode(text, truncation=True, max_length=keep)
        assert truncated(ours.encode(text), keep, side, ours) == expected


def test_special_tokens_around_a_text(folders: dict[str, Path]) -> None:
    around = {
        name: Tokenizer.load(folder).special_tokens_around for name, folder in folders.items()
    }
    assert around == {"bytes": (1, 0), "plain": (0, 0), "pieces": (1, 0), "both": (1, 1)}


def test_model_max_length_ignores_absurd_numbers(folders: dict[str, Path]) -> None:
    assert Tokenizer.load(folders["pieces"]).model_max_length is None
    assert Tokenizer.load(folders["bytes"]).model_max_length == 4096


def test_tokens_listed_only_in_the_config_are_added(tmp_path: Path) -> None:
    checkpoints.write_tokenizer(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    config = json.loads(path.read_text())
    entry = {"content": "<|tool|>", "special": True, "lstrip": False, "rstrip": False,
             "normalized": False, "single_word": False}  # fmt: skip
    path.write_text(json.dumps(config | {"added_tokens_decoder": {"500": entry}}))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.encode("<|tool|>", False) == [500]
    assert tokenizer.decode([500], skip_special_tokens=True) == ""
    assert tokenizer.vocab_size == 501


def test_a_missing_or_broken_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no tokenizer\.json in .*skip_tokenizer_init"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelLoadError, match="is not a tokenizer that can be read"):
        Tokenizer.load(tmp_path)
    checkpoints.write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(ModelLoadError, match="must be a JSON object"):
        Tokenizer.load(tmp_path)


def test_lone_surrogates_are_refused(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(folders["bytes"])
    with pytest.raises(InvalidRequestError, match="surrogate"):
        tokenizer.encode("a\ud800b")
    with pytest.raises(InvalidRequestError):
        tokenizer.refuse_too_long("\ud800" * 100_000, 10)


def test_a_text_that_cannot_fit_is_refused_at_once(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(folders["bytes"])
    text = "the harbour and the ships " * 400_000  # 10 MB
    begin = time.process_time()
    with pytest.raises(InvalidRequestError, match=r"at least \d+ prompt tokens .* limit is 4095"):
        tokenizer.refuse_too_long(text, 4095)
    assert time.process_time() - begin < 1.0
    with pytest.raises(InvalidRequestError, match="prompt tokens"):
        tokenizer.refuse_too_long(text, 400_000)  # its size alone does not tell


@pytest.mark.parametrize("name", ["bytes", "pieces"])
@given(text=st.text(max_size=60), slack=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_a_text_that_fits_is_never_refused(
    folders: dict[str, Path], name: str, text: str, slack: int
) -> None:
    tokenizer = Tokenizer.load(folders[name]) if name not in _LOADED else _LOADED[name]
    _LOADED[name] = tokenizer
    tokenizer.refuse_too_long(text * 20, len(tokenizer.encode(text * 20)) + slack)


_LOADED: dict[str, Tokenizer] = {}


@pytest.mark.parametrize("name", ["bytes", "pieces"])
def test_pieces_joined_are_the_text(folders: dict[str, Path], name: str) -> None:
    tokenizer = Tokenizer.load(folders[name])
    for text in TEXTS[1:4]:
        ids = tokenizer.encode(text, False)
        pieces = PieceDecoder(tokenizer)
        joined = "".join(pieces.push(one) for one in ids)
        assert joined.removeprefix(" " if name == "pieces" else "") == text
        for one in ids[-2:]:
            assert isinstance(pieces.peek(one), str)


def test_a_character_belongs_to_the_token_that_completes_it(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(folders["pieces"])
    ids = [tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "😀".encode()]
    pieces = PieceDecoder(tokenizer)
    assert [pieces.push(one) for one in ids] == ["", "", "", "😀"]
    pieces.push(ids[0])
    assert pieces.peek(ids[0]) == "�"  # a second first byte ends the broken character
    assert pieces.push(ids[1], last=True) == "�"


def test_bytes_of_single_tokens(folders: dict[str, Path]) -> None:
    tokenizer = Tokenizer.load(folders["pieces"])
    assert tokenizer.token_bytes(tokenizer.convert_tokens_to_ids("▁the")) == b" the"
    assert tokenizer.token_bytes(tokenizer.convert_tokens_to_ids("</s>")) == b"</s>"
    assert tokenizer.token_bytes(100_000) == b""
    byte_level = Tokenizer.load(folders["bytes"])
    assert [byte_level.token_bytes(byte_level.get_vocab()[char]) for char in "ĠĊA"] == [
        b" ",
        b"\n",
        b"A",
    ]
