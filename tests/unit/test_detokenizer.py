"""Pieces of text joined are the decoded whole, however the output was cut."""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from quire.frontend import byte_text
from quire.frontend.detokenizer import detokenizer_of
from tests.unit.tokenizers_built import sentencepiece_like

TEXT = "Héllo  wörld,\n 日本語 🙂👩‍👩‍👧 a\u0301 <|end|> end.\n\n"


def byte_level() -> Tokenizer:
    """One token a byte, a few merges, two special tokens and an ordinary added one."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: number for number, letter in enumerate(letters)}
    merges = [("Ġ", "w"), ("l", "l"), ("ð", "Ł"), ("æ", "Ĺ"), ("ï", "¿"), ("ï¿", "½")]
    for left, right in merges:
        vocab[left + right] = len(vocab)
    made = Tokenizer(models.BPE(vocab, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(["<|end|>", "<|start|>"])
    made.add_tokens([AddedToken("two words", normalized=False)])
    return made


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder: Path = sentencepiece_like(tmp_path_factory.mktemp("tokenizer"))
    pieces = Tokenizer.from_file(str(folder / "tokenizer.json"))
    joined = byte_level()
    joined.decoder = decoders.Sequence([decoders.ByteLevel()])
    return {"bytes": byte_level(), "bytes of several decoders": joined, "pieces": pieces}


KINDS = ("bytes", "bytes of several decoders", "pieces")


def streamed(
    tokenizer: Tokenizer, prompt: list[int], output: list[int], cuts: list[int], skip: bool
) -> list[str]:
    """The pieces when the output comes cut at `cuts`."""
    made = detokenizer_of(tokenizer, prompt_ids=prompt, skip_special_tokens=skip)
    edges = [0, *sorted(cuts), len(output)]
    pieces = [made.append(output[low:high]) for low, high in pairwise(edges)]
    return [*pieces, made.finish()]


def beyond(tokenizer: Tokenizer, prompt: list[int], output: list[int], skip: bool) -> str:
    """What decoding the whole gives after the prompt's text."""
    before = tokenizer.decode(prompt, skip_special_tokens=skip)
    return tokenizer.decode(prompt + output, skip_special_tokens=skip)[len(before) :]


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_every_split_of_a_text_gives_it_back(
    kinds: dict[str, Tokenizer], kind: str, skip: bool
) -> None:
    tokenizer = kinds[kind]
    ids = tokenizer.encode(TEXT, add_special_tokens=False).ids
    whole = tokenizer.decode(ids, skip_special_tokens=skip)
    for start in range(len(ids)):
        prompt, output = ids[:start], ids[start:]
        before = tokenizer.decode(prompt, skip_special_tokens=skip)
        if before.endswith("\ufffd"):
            continue  # cut inside a character; tested below
        for cuts in ([], list(range(len(output))), list(range(0, len(output), 3))):
            pieces = streamed(tokenizer, prompt, output, cuts, skip)
            assert before + "".join(pieces) == whole
            assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kind", KINDS)
def test_a_character_begun_in_the_prompt_is_finished_in_the_output(
    kinds: dict[str, Tokenizer], kind: str
) -> None:
    tokenizer = kinds[kind]
    ids = tokenizer.encode("the 🙂 cat", add_special_tokens=False).ids
    found = 0
    for start in range(1, len(ids)):
        if not tokenizer.decode(ids[:start]).endswith("\ufffd"):
            continue
        found += 1
        assert "".join(streamed(tokenizer, ids[:start], ids[start:], [], True)) == "🙂 cat"
    assert found >= 2


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_random_ids_are_lossless(
    kinds: dict[str, Tokenizer], kind: str, data: st.DataObject
) -> None:
    """Also where the ids are no text at all, and where some are unknown."""
    tokenizer = kinds[kind]
    size = tokenizer.get_vocab_size()
    often = st.sampled_from(tokenizer.encode("🙂日é\ufffd a", add_special_tokens=False).ids)
    ids = st.lists(st.one_of(st.integers(0, size + 3), often), max_size=60)
    skip = data.draw(st.booleans())
    prompt = tokenizer.encode("the cat", add_special_tokens=True).ids + [
        one for one in data.draw(ids) if skip or one < size
    ]
    prompt += tokenizer.encode(" on", add_special_tokens=False).ids
    output = data.draw(ids)
    cuts = data.draw(st.lists(st.integers(0, len(output)), max_size=60))
    pieces = streamed(tokenizer, prompt, output, cuts, skip)
    assert "".join(pieces) == beyond(tokenizer, prompt, output, skip)
    one_by_one = streamed(tokenizer, prompt, output, list(range(len(output))), skip)
    assert "".join(one_by_one) == "".join(pieces)


def test_an_emoji_is_held_back_until_its_last_byte(kinds: dict[str, Tokenizer]) -> None:
    tokenizer = kinds["bytes"]
    ids = tokenizer.encode("a🙂b", add_special_tokens=False).ids
    pieces = streamed(tokenizer, [], ids, list(range(len(ids))), True)
    assert [piece for piece in pieces if piece] == ["a", "🙂", "b"]


def test_a_run_of_byte_tokens_is_held_back_until_it_ends(kinds: dict[str, Tokenizer]) -> None:
    """One broken byte makes the whole run undecodable, so nothing of it is certain before."""
    tokenizer = kinds["pieces"]
    newline, broken = (tokenizer.token_to_id(name) for name in ("<0x0A>", "<0xE2>"))
    word = tokenizer.token_to_id("▁cat")
    made = detokenizer_of(tokenizer, prompt_ids=[word])
    assert made.append([newline]) == ""
    assert made.append([word]) == "\n cat"
    assert made.append([newline, broken]) == ""
    assert made.append([word]) == "\ufffd\ufffd cat"
    assert made.append([newline]) == ""
    assert made.finish() == "\n"
    assert made.finish() == ""


def test_the_space_before_the_first_word_is_that_of_the_whole(kinds: dict[str, Tokenizer]) -> None:
    """Also where the prompt ends in special tokens that are skipped, or has no text at all."""
    tokenizer = kinds["pieces"]
    word, end = tokenizer.token_to_id("▁cat"), tokenizer.token_to_id("</s>")
    assert detokenizer_of(tokenizer, prompt_ids=[word, *[end] * 30]).append([word]) == " cat"
    assert detokenizer_of(tokenizer, prompt_ids=[end]).append([word, word]) == "cat cat"
    assert detokenizer_of(tokenizer, prompt_ids=[]).append([word]) == "cat"
    made = detokenizer_of(tokenizer, prompt_ids=[word])
    assert made.append([10**6] * 100) == ""  # ids beyond the vocabulary
    assert made.append([word]) == " cat"


def test_a_real_replacement_character_is_not_held_back(kinds: dict[str, Tokenizer]) -> None:
    tokenizer = kinds["bytes"]
    made = detokenizer_of(tokenizer, prompt_ids=tokenizer.encode("x\ufffd").ids)
    for _ in range(100):
        assert made.append(tokenizer.encode("\ufffd").ids) == "\ufffd"


@pytest.mark.parametrize("skip", [True, False])
def test_special_tokens_are_skipped_or_kept(kinds: dict[str, Tokenizer], skip: bool) -> None:
    tokenizer = kinds["bytes"]
    ids = tokenizer.encode("a<|start|><|end|>two wordsb").ids
    text = "".join(streamed(tokenizer, ids[:1], ids[1:], list(range(len(ids))), skip))
    assert text == ("two wordsb" if skip else "<|start|><|end|>two wordsb")


def test_no_space_is_put_between_special_tokens_where_none_is_wanted() -> None:
    """Without a decoder, tokens are joined by spaces."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<s>": 2, "</s>": 3}, unk_token="a"))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    for spaces, want in ((True, " <s> </s> <s> b a </s>"), (False, " <s></s><s> b a </s>")):
        made = detokenizer_of(
            tokenizer,
            prompt_ids=[0],
            skip_special_tokens=False,
            spaces_between_special_tokens=spaces,
        )
        assert (
            made.append([2]) + made.append([3, 2, 1]) + made.append([0, 3]) + made.finish() == want
        )
    made = detokenizer_of(
        tokenizer, prompt_ids=[0], skip_special_tokens=True, spaces_between_special_tokens=False
    )
    assert made.append([2, 3, 1]) == " b"


class Counting:
    """A tokenizer that counts the ids it decodes."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.num_decoded = 0

    def decode(self, ids: list[int], **given: bool) -> str:
        self.num_decoded += len(ids)
        return self._tokenizer.decode(ids, **given)

    def __getattr__(self, name: str) -> object:
        return getattr(self._tokenizer, name)


@pytest.mark.parametrize("name", ["word", "broken byte", "byte run", "unknown", "replacement"])
def test_the_work_is_linear_in_the_output(kinds: dict[str, Tokenizer], name: str) -> None:
    count = 3000
    tokenizer, ids = {
        "word": (kinds["pieces"], [kinds["pieces"].token_to_id("▁cat")] * count),
        "broken byte": (kinds["bytes"], [kinds["bytes"].token_to_id("ð")] * count),
        "byte run": (kinds["pieces"], [kinds["pieces"].token_to_id("<0xE2>")] * count),
        "unknown": (kinds["pieces"], [10**6] * count),
        "replacement": (kinds["bytes"], kinds["bytes"].encode("\ufffd" * count).ids),
    }[name]
    counting = Counting(tokenizer)
    started = time.monotonic()
    prompt = tokenizer.encode("the cat " * 1000).ids
    pieces = streamed(counting, prompt, ids, list(range(len(ids))), True)  # type: ignore[arg-type]
    assert counting.num_decoded <= 30 * len(ids) + 200
    assert time.monotonic() - started < 20
    assert "".join(pieces) == beyond(tokenizer, prompt, ids, True)


def test_letters_of_the_byte_level_spelling_are_those_of_tokenizers() -> None:
    assert set(byte_text._BYTES) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_text._BYTES.values()) == list(range(256))
