"""Broken and hostile checkpoints: each is refused at once, in one sentence that names the file and the field."""

from __future__ import annotations

import json
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from tests.models import harness
from tests.models.families import llama

Spoil = Callable[[Path], None]
Entries = dict[str, Any]
NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return harness.write_checkpoint(tmp_path_factory.mktemp("whole"), llama())


def _header(folder: Path) -> tuple[Entries, bytes]:
    data = (folder / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def _write(folder: Path, text: bytes, numbers: bytes) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + numbers)


def _changed(change: Callable[[Entries], None]) -> Spoil:
    def spoil(folder: Path) -> None:
        entries, numbers = _header(folder)
        change(entries)
        _write(folder, json.dumps(entries).encode(), numbers)

    return spoil


def _entry(**values: Any) -> Spoil:
    return _changed(lambda entries: entries[NAME].update(values))


def _bytes(change: Callable[[bytes], bytes]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def _config(**values: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return spoil


def _file(name: str, text: str) -> Spoil:
    return lambda folder: (folder / name).write_text(text) and None  # type: ignore[func-returns-value, return-value]


def _twice(folder: Path) -> None:
    entries, numbers = _header(folder)
    text = json.dumps(entries)[:-1] + f', "{NAME}": {json.dumps(entries[NAME])}' + "}"
    _write(folder, text.encode(), numbers)


def _index(**places: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
        names, _ = json.loads((folder / "names.json").read_text()), None
        weight_map = dict.fromkeys(names, "model-00001-of-00002.safetensors") | places
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return spoil


def _pipe(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    os.mkfifo(folder / "model.safetensors")


def _same_in_two(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    for name in ("a.safetensors", "b.safetensors"):
        (folder / name).write_bytes(data)


def _drop(entries: Entries) -> None:
    """The last tensor is gone, the numbers stay."""
    last = max(entries, key=lambda name: entries[name].get("data_offsets", [0])[0])
    del entries[last]


def _swap(entries: Entries) -> None:
    entries[NAME]["data_offsets"][0] -= 4


ROWS: dict[str, tuple[Spoil, str]] = {
    "header length 2^63": (_bytes(lambda d: struct.pack("<Q", 2**63) + d[8:]), "whole safetensors"),
    "header longer than the file": (_bytes(lambda d: struct.pack("<Q", len(d)) + d[8:]), "whole"),
    "empty": (_bytes(lambda d: b""), "whole safetensors"),
    "header is no JSON": (_bytes(lambda d: d[:8] + b"x" + d[9:]), "damaged header"),
    "header is a list": (lambda folder: _write(folder, b"[]", b""), "damaged header"),
    "one byte short": (_bytes(lambda d: d[:-1]), "cut short"),
    "one byte more": (_bytes(lambda d: d + b"x"), "1 bytes behind its last tensor"),
    "a name twice": (_twice, f"'{NAME}' twice"),
    "unknown type": (_entry(dtype="F4"), f"'{NAME}' is stored as F4"),
    "no type": (_changed(lambda e: e[NAME].pop("dtype")), "damaged header.*dtype"),
    "negative sizes": (_entry(shape=[-4, -8]), f"'{NAME}' has the shape"),
    "sizes as text": (_entry(shape=["4", "8"]), f"'{NAME}' has the shape"),
    "other shape": (_entry(shape=[1, 3]), f"'{NAME}' of shape \\[1, 3\\]"),
    "huge shape": (_entry(shape=[2**40, 2**40]), f"'{NAME}' of shape"),
    "negative offset": (_changed(_swap), f"'{NAME}' has data_offsets|'{NAME}' of shape"),
    "offsets past the end": (_entry(data_offsets=[0, 2**62]), "cut short"),
    "overlapping": (_entry(data_offsets=[0, 64]), "data_offsets"),
    "a tensor missing": (_changed(_drop), "bytes behind its last tensor"),
    "index names an absent shard": (
        _index(extra="model-00002-of-00002.safetensors"),
        "lacks the shard model-00002-of-00002",
    ),
    "index leaves the folder": (_index(extra="../../etc/passwd"), "not a file of this folder"),
    "index is no JSON": (
        _file("model.safetensors.index.json", "{"),
        "index.json cannot be read",
    ),
    "a pipe": (_pipe, "no regular file"),
    "a tensor in two files": (_same_in_two, "is in a.safetensors and in b.safetensors"),
    "config is no JSON": (_file("config.json", "{"), "config.json is not valid JSON"),
    "config is a list": (_file("config.json", "[]"), "config.json must hold a JSON object"),
    "config nested": (_file("config.json", "[" * 100_000), "config.json is not valid JSON"),
    "config of 17 MiB": (
        _file("config.json", " " * (17 << 20)),
        "config.json has 17,825,792 bytes",
    ),
    "width 0": (_config(hidden_size=0), "hidden_size is 0"),
    "negative width": (_config(hidden_size=-1), "hidden_size is -1"),
    "width as text": (_config(hidden_size="64"), "hidden_size is '64'"),
    "heads do not divide": (_config(num_key_value_heads=3), "num_key_value_heads is 3"),
    "many layers": (_config(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "more layers than there are": (_config(num_hidden_layers=9), "lacks tensors"),
    "other vocabulary": (_config(vocab_size=7), "embed_tokens.* but config.json implies"),
    "unknown scaling": (_config(rope_scaling={"rope_type": "own", "factor": 2.0}), "'own'"),
    "a key of other maths": (_config(logit_twist=0.5), "does not know logit_twist"),
    "unknown architecture": (_config(architectures=["NobodyForCausalLM"]), "'NobodyForCausalLM'"),
    "code of its own": (
        _config(
            architectures=["NobodyForCausalLM"], auto_map={"AutoModelForCausalLM": "evil.Evil"}
        ),
        "--trust-remote-code",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_it_is_refused_at_once_by_name(row: str, whole: Path, tmp_path: Path) -> None:
    spoil, words = ROWS[row]
    folder = tmp_path / "model"
    folder.mkdir()
    for path in whole.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    names = [name for name in _header(folder)[0] if name != "__metadata__"]
    (folder / "names.json").write_text(json.dumps(names))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'marker')!r}, 'w')")
    spoil(folder)
    started = time.process_time()
    with pytest.raises(ModelLoadError, match=words) as caught:
        describe(str(folder))
    assert time.process_time() - started < 5.0
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "marker").exists()


def test_the_whole_one_is_taken(whole: Path) -> None:
    assert describe(str(whole)).architecture == "LlamaForCausalLM"


@pytest.mark.parametrize(
    ("top_k", "said"), [(9, "9 of 8 experts"), (0, "num_experts_per_tok is 0")]
)
def test_more_experts_than_there_are_or_none(tmp_path: Path, top_k: int, said: str) -> None:
    config = {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": 64,
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "num_local_experts": 8, "num_experts_per_tok": top_k,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match=said):
        describe(str(tmp_path))
