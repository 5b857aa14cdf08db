"""The prompts of a measurement: made at random, or read from a file.

The flags that choose them are `bench.dataset_flags`; sending them is the measuring commands' business.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quire.frontend.tokenizer import Tokenizer
from quire.protocol.errors import SettingsError

_MIN_LEN, _MAX_PROMPT_LEN, _MAX_TOTAL_LEN = 4, 1024, 2048
"""Conversations of ShareGPT files are kept between these lengths, in tokens, as is usual for this file."""

_LENGTH_TRIES = 10


@dataclass(frozen=True)
class Sample:
    """One request: `ids` are the prompt's tokens with the special ones; `text` is the prompt as text.

    text        None where there is no tokenizer.
    output_len  tokens to be made.
    """

    ids: list[int]
    text: str | None
    output_len: int


@dataclass(frozen=True)
class Source:
    """What prompts are made of: a tokenizer, or only the number of ids.

    as_text  random prompts must be texts, whose tokens are counted again.
    """

    tokenizer: Tokenizer | None
    vocab_size: int
    as_text: bool

    def ordinary_ids(self) -> list[int]:
        """Ids that stand for plain text; for texts, only those whose bytes are whole characters."""
        tokenizer = self.tokenizer
        if tokenizer is None:
            return list(range(self.vocab_size))
        special = set(tokenizer.all_special_ids)
        size = min(self.vocab_size, tokenizer.vocab_size)
        return [
            one
            for one in range(size)
            if one not in special and (not self.as_text or _is_text(tokenizer.token_bytes(one)))
        ]

    def need_tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises SettingsError without one."""
        if self.tokenizer is None:
            raise SettingsError(
                "this data set needs a tokenizer; name its folder with --tokenizer, or use "
                "--dataset-name random"
            )
        return self.tokenizer

    def sample(self, text: str, output_len: int) -> Sample:
        """A sample of a text."""
        return Sample(self.need_tokenizer().encode(text), text, output_len)


@dataclass(frozen=True, kw_only=True)
class RandomSizes:
    """Lengths in tokens. `range_ratio` r draws each length between (1-r) and (1+r) times it.

    prefix_len  tokens that all prompts begin with, beside input_len.
    """

    input_len: int
    output_len: int
    range_ratio: float = 0.0
    prefix_len: int = 0


def random_samples(source: Source, count: int, sizes: RandomSizes, seed: int) -> list[Sample]:
    """Prompts of random tokens. The same for the same seed."""
    rng = random.Random(seed)
    ids = source.ordinary_ids()
    prefix = rng.choices(ids, k=sizes.prefix_len)
    samples = []
    for _ in range(count):
        input_len = _draw(rng, sizes.input_len, sizes.range_ratio)
        output_len = _draw(rng, sizes.output_len, sizes.range_ratio)
        samples.append(_of_length(source, rng, ids, (prefix, len(prefix) + input_len), output_len))
    return samples


@dataclass(frozen=True, kw_only=True)
class PrefixSizes:
    """Lengths in tokens of prompts that share `num_prefixes` beginnings."""

    prefix_len: int
    suffix_len: int
    num_prefixes: int
    output_len: int


def prefix_samples(source: Source, count: int, sizes: PrefixSizes, seed: int) -> list[Sample]:
    """Prompts that share their beginnings, each beginning equally often, mixed."""
    rng = random.Random(seed)
    ids = source.ordinary_ids()
    prefixes = [rng.choices(ids, k=sizes.prefix_len) for _ in range(sizes.num_prefixes)]
    length = sizes.prefix_len + sizes.suffix_len
    samples = []
    for place in range(count):
        start = (prefixes[place % sizes.num_prefixes], length)
        samples.append(_of_length(source, rng, ids, start, sizes.output_len))
    rng.shuffle(samples)
    return samples


def _draw(rng: random.Random, length: int, ratio: float) -> int:
    return max(1, rng.randint(int(length * (1 - ratio)), int(length * (1 + ratio))))


def _of_length(
    source: Source,
    rng: random.Random,
    ids: list[int],
    start: tuple[list[int], int],
    output_len: int,
) -> Sample:
    """A sample of start[1] tokens beginning with start[0]; as text, as close to that as a text comes."""
    prefix, length = start
    chosen = [*prefix, *rng.choices(ids, k=max(0, length - len(prefix)))]
    if not source.as_text:
        return Sample(chosen[:length], None, output_len)
    tokenizer = source.need_tokenizer()
    inner = max(1, length - sum(tokenizer.special_tokens_around))
    chosen = chosen[:inner]
    best = tokenizer.decode(chosen)
    for _ in range(_LENGTH_TRIES):
        got = tokenizer.encode(best, add_special_tokens=False)
        if len(got) == inner:
            break
        chosen = got[:inner] + rng.choices(ids, k=max(0, inner - len(got)))
        best = tokenizer.decode(chosen)
    return Sample(tokenizer.encode(best), best, output_len)


def sharegpt_samples(
    source: Source, path: str, count: int, *, output_len: int | None, seed: int | None
) -> list[Sample]:
    """First turns of the conversations of a file in ShareGPT's form: a JSON list of `conversations`.

    output_len  None takes the length of the second turn.
    seed        None keeps the order of the file.
    """
    content = _read(path, lambda text: json.loads(text))
    if not isinstance(content, list):
        raise SettingsError(f"{path} is not a JSON list of conversations")
    turns = [entry.get("conversations") or [] for entry in content if isinstance(entry, dict)]
    pairs = [(t[0].get("value"), t[1].get("value")) for t in turns if len(t) >= 2]
    _shuffle(pairs, seed)
    tokenizer = source.need_tokenizer()
    samples: list[Sample] = []
    for prompt, answer in pairs:
        if len(samples) == count:
            break
        if not isinstance(prompt, str) or not isinstance(answer, str):
            continue
        made_len = output_len or len(tokenizer.encode(answer, add_special_tokens=False))
        sample = source.sample(prompt, made_len)
        fits = _MIN_LEN <= len(sample.ids) <= _MAX_PROMPT_LEN
        fits = fits and len(sample.ids) + made_len <= _MAX_TOTAL_LEN
        if fits and (output_len is not None or made_len >= _MIN_LEN):
            samples.append(sample)
    return _some(samples, path)


def custom_samples(
    source: Source, path: str, count: int, *, output_len: int, seed: int | None
) -> list[Sample]:
    """The `prompt` of each line of a JSONL file. output_len -1 takes each line's `output_tokens`."""
    entries = _read(
        path, lambda text: [json.loads(line) for line in text.splitlines() if line.strip()]
    )
    _shuffle(entries, seed)
    samples = []
    for entry in entries[:count]:
        prompt = entry.get("prompt") if isinstance(entry, dict) else None
        if not isinstance(prompt, str) or not prompt:
            raise SettingsError(f"{path}: a line has no prompt: {str(entry)[:100]}")
        own_len = entry.get("output_tokens")
        if output_len == -1 and (not isinstance(own_len, int) or own_len < 1):
            raise SettingsError(
                f"{path}: --custom-output-len -1 needs output_tokens in each line: {str(entry)[:100]}"
            )
        samples.append(source.sample(prompt, own_len if output_len == -1 else output_len))
    return _some(samples, path)


def oversample(samples: Sequence[Sample], count: int) -> list[Sample]:
    """`count` samples: the given ones, again from the first where they are too few."""
    return [samples[place % len(samples)] for place in range(count)]


def batches(samples: Sequence[Sample], size: int) -> Iterator[list[Sample]]:
    """The samples in their order, `size` at a time; the last batch may be smaller."""
    for first in range(0, len(samples), size):
        yield list(samples[first : first + size])


def _is_text(token: bytes) -> bool:
    try:
        return len(token.decode()) > 0
    except UnicodeDecodeError:
        return False


def _shuffle(items: list[Any], seed: int | None) -> None:
    if seed is not None:
        random.Random(seed).shuffle(items)


def _some(samples: list[Sample], path: str) -> list[Sample]:
    if not samples:
        raise SettingsError(f"{path} holds no prompt that can be used")
    return samples


def _read(path: str, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--dataset-path {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SettingsError(f"--dataset-path {path} is not valid JSON: {error}") from error
