"""The flags that choose the prompts of a measurement, and the prompts they choose.

How prompts are made or read is `bench.datasets`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from quire.bench import datasets
from quire.bench.arguments import add_always, add_switch, number, refuse, whole
from quire.bench.datasets import PrefixSizes, RandomSizes, Sample, Source
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.errors import SettingsError

NAMES = ("random", "sharegpt", "custom", "prefix_repetition")
_NOT_THERE = (
    "sonnet", "burstgpt", "hf", "random-mm", "random-rerank", "custom_audio", "custom_image", "custom_mm",
    "spec_bench", "speed_bench", "timed_trace",
)  # fmt: skip

_REFUSED = {
    "--sonnet-input-len --sonnet-output-len --sonnet-prefix-len": "there is no sonnet data set; use "
    "prefix_repetition, or custom with a file",
    "--no-stream --hf-subset --hf-split --hf-name --hf-output-len --blazedit-min-distance --blazedit-max-distance "
    "--asr-min-audio-len-sec --asr-max-audio-len-sec --bfcl-categories": "data sets of the hub are not "
    "read; write the prompts to a JSONL file for --dataset-name custom",
    "--spec-bench-output-len --spec-bench-category --speed-bench-output-len --speed-bench-category "
    "--speed-bench-dataset-subset": "there is no such data set; use custom with a file",
    "--timed-trace-chunk-size --timed-trace-output-len": "traces are not replayed",
    "--enable-multimodal-chat --random-mm-base-items-per-request --random-mm-num-mm-items-range-ratio "
    "--random-mm-limit-mm-per-prompt --random-mm-bucket-config": "prompts are text only",
    "--no-reranker": "there is no data set of pairs to be ranked",
    "--custom-ensure-client-side-data": "a custom file is always read by the client; leave it out",
}


def add_dataset_flags(parser: argparse.ArgumentParser, num_prompts: int) -> None:
    """The flags. `--input-len` and `--output-len` are general forms of the data sets' own."""
    group = parser.add_argument_group("prompts")
    group.add_argument("--dataset-name", help=f"{', '.join(NAMES)}; default: random")
    group.add_argument(
        "--dataset-path", "--dataset", help="file of sharegpt (JSON) or custom (JSONL)"
    )
    group.add_argument("--num-prompts", type=whole(1), default=num_prompts, help="requests")
    group.add_argument(
        "--num-warmups", type=whole(0), default=0, help="requests before, not counted"
    )
    group.add_argument("--input-len", type=whole(1), help="length of prompts, in tokens")
    group.add_argument("--output-len", type=whole(1), help="length of answers, in tokens")
    group.add_argument("--prefix-len", type=whole(0), help="tokens that random prompts share")
    group.add_argument("--random-input-len", type=whole(1), default=1024, help="as --input-len")
    group.add_argument("--random-output-len", type=whole(1), default=128, help="as --output-len")
    group.add_argument("--random-prefix-len", type=whole(0), default=0, help="as --prefix-len")
    group.add_argument(
        "--random-range-ratio",
        type=number(),
        default=0.0,
        help="lengths vary between (1-r) and (1+r) times; below 1",
    )
    group.add_argument("--random-batch-size", type=whole(1), default=1, help=argparse.SUPPRESS)
    group.add_argument("--sharegpt-output-len", type=whole(1), help="instead of the file's own")
    group.add_argument(
        "--custom-output-len", type=whole(-1), default=256, help="-1: output_tokens of each line"
    )
    for name, default in (
        ("prefix-len", 256),
        ("suffix-len", 256),
        ("num-prefixes", 10),
        ("output-len", 128),
    ):
        group.add_argument(
            f"--prefix-repetition-{name}",
            type=whole(1),
            default=default,
            help=f"default: {default}",
        )
    add_switch(group, "--disable-shuffle", "keep the order of the file")
    group.add_argument(
        "--no-oversample", action="store_true", help="do not repeat the prompts of a short file"
    )
    add_always(
        group,
        "--skip-chat-template",
        "prompts are always sent as they are; --backend openai-chat of bench serve lets the server "
        "apply its template",
    )
    refuse(parser, _REFUSED)


def choose(flags: argparse.Namespace, source: Source, seed: int) -> list[Sample]:
    """The samples that the flags ask for. Raises SettingsError."""
    count = flags.num_prompts
    name = _name(flags)
    shuffle_seed = None if flags.disable_shuffle else seed
    if name == "random":
        return datasets.random_samples(source, count, _random_sizes(flags), seed)
    if name == "prefix_repetition":
        sizes = PrefixSizes(
            prefix_len=flags.prefix_repetition_prefix_len,
            suffix_len=flags.prefix_repetition_suffix_len,
            num_prefixes=flags.prefix_repetition_num_prefixes,
            output_len=flags.output_len or flags.prefix_repetition_output_len,
        )
        return datasets.prefix_samples(source, count, sizes, seed)
    if not flags.dataset_path:
        raise SettingsError(f"--dataset-name {name} needs --dataset-path FILE")
    if name == "sharegpt":
        made_len = flags.output_len or flags.sharegpt_output_len
        samples = datasets.sharegpt_samples(
            source, flags.dataset_path, count, output_len=made_len, seed=shuffle_seed
        )
    else:
        own_len = flags.output_len or flags.custom_output_len
        if own_len == 0:
            raise SettingsError(
                "--custom-output-len is 0; give a length, or -1 for that of each line"
            )
        samples = datasets.custom_samples(
            source, flags.dataset_path, count, output_len=own_len, seed=shuffle_seed
        )
    return samples if flags.no_oversample else datasets.oversample(samples, count)


def _name(flags: argparse.Namespace) -> str:
    name: str = flags.dataset_name or ("sharegpt" if flags.dataset_path else "random")
    if name in _NOT_THERE:
        raise SettingsError(f"--dataset-name {name} is not served; use one of: {', '.join(NAMES)}")
    if name not in NAMES:
        raise SettingsError(f"--dataset-name is {name!r}; it must be one of: {', '.join(NAMES)}")
    if flags.random_batch_size != 1:
        raise SettingsError("--random-batch-size is not served: a request has one prompt")
    return name


def _random_sizes(flags: argparse.Namespace) -> RandomSizes:
    if flags.random_range_ratio >= 1.0:
        raise SettingsError(
            f"--random-range-ratio is {flags.random_range_ratio:g}; it must be below 1"
        )
    return RandomSizes(
        input_len=flags.input_len or flags.random_input_len,
        output_len=flags.output_len or flags.random_output_len,
        range_ratio=flags.random_range_ratio,
        prefix_len=flags.random_prefix_len if flags.prefix_len is None else flags.prefix_len,
    )


def read_source(model: str, tokenizer: str | None, *, as_text: bool) -> Source:
    """What prompts are made of: the tokenizer's folder, else the model's; else its number of ids.

    Raises SettingsError if texts are needed and no tokenizer is there.
    """
    folder = Path(tokenizer or model)
    found = Tokenizer.load(folder) if (folder / "tokenizer.json").is_file() else None
    if found is None and (as_text or tokenizer is not None):
        raise SettingsError(
            f"there is no tokenizer.json in {str(folder)!r}; name the folder of the model's tokenizer with "
            "--tokenizer"
        )
    size = _vocab_size(Path(model))
    if size is None and found is None:
        raise SettingsError(f"there is no checkpoint in {model!r}; give its folder")
    return Source(found, size or (found.vocab_size if found is not None else 0), as_text)


def _vocab_size(folder: Path) -> int | None:
    try:
        config: Any = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    size = config.get("vocab_size", (config.get("text_config") or {}).get("vocab_size"))
    return size if isinstance(size, int) else None
