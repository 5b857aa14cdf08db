"""Packed weights kept on disk: the same bits, and no start that fails because of them."""

from __future__ import annotations

import logging
import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from quire import LLM
from quire.engine import ahead
from quire.models.build import build_decoder
from quire.models.loading import kept, packed
from quire.models.loading.kept import ReadAhead, read_ahead
from quire.models.loading.native_threads import native_library
from quire.models.loading.packed import KeptWeights, checksum
from quire.models.loading.reader import _Checkpoint
from quire.models.registry import describe
from quire.ops.cpu.library import library, using
from quire.ops.registry import Table
from quire.protocol.errors import SettingsError
from quire.quant.schemes.checkpoint import scheme_for
from tests.models import harness
from tests.models.families_moe import MOE_CASES
from tests.models.test_quantized_checkpoints import CONFIG, IDS

pytestmark = pytest.mark.skipif(library() is None, reason="no native library here")
LIMIT = 1 << 28


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return harness.write_checkpoint(tmp_path_factory.mktemp("plain"), CONFIG)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The parameters that were read from checkpoints."""
    names: list[str] = []
    read, borrow = _Checkpoint.__call__, _Checkpoint.borrow

    def reading(source: Any, name: str) -> torch.Tensor:
        names.append(name)
        return read(source, name)

    def borrowing(source: Any, name: str) -> torch.Tensor:
        names.append(name)
        return borrow(source, name)

    monkeypatch.setattr(_Checkpoint, "__call__", reading)
    monkeypatch.setattr(_Checkpoint, "borrow", borrowing)
    yield names


def logits(
    folder: Path,
    place: Path | None,
    quantization: str | None = None,
    limit: int = LIMIT,
    ahead: ReadAhead | None = None,
) -> torch.Tensor:
    description = describe(str(folder))
    decoder = build_decoder(
        description,
        Table(),
        dtype=torch.float32,
        device=torch.device("cpu"),
        max_model_len=64,
        scheme=scheme_for(quantization, description.quantization, description.formats, "cpu"),
        packed_weights=None if place is None else (place, limit),
        ahead=ahead,
    )
    if ahead is not None:
        ahead.close()
    return harness.our_logits(decoder, IDS, max_len=64)


@pytest.mark.parametrize("quantization", [None, "int8", "int4", "int8_w8a8", "fp8_per_block"])
def test_a_second_start_has_the_same_bits_and_reads_no_matrix(
    quantization: str | None, folder: Path, tmp_path: Path, asked: list[str]
) -> None:
    want = logits(folder, None, quantization)
    assert torch.equal(logits(folder, tmp_path, quantization), want)
    assert [path.suffix for path in tmp_path.iterdir()] == [".packed"]
    asked.clear()
    assert torch.equal(logits(folder, tmp_path, quantization), want)
    assert not [name for name in asked if "norm" not in name and name != "embedding.weight"]


def read_early(path: Path) -> ReadAhead:
    native = library()
    assert native is not None
    found = read_ahead(path, native.isa, 2)
    assert found is not None
    return found


@pytest.mark.parametrize("quantization", [None, "int4"])
def test_what_threads_read_early_has_the_same_bits(
    quantization: str | None,
    folder: Path,
    tmp_path: Path,
    asked: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kept, "_PIECE_BYTES", 8192)
    want = logits(folder, tmp_path, quantization)
    (file,) = tmp_path.iterdir()
    asked.clear()
    monkeypatch.setattr(packed, "allocate", None)  # nobody else reads
    assert torch.equal(logits(folder, tmp_path, quantization, ahead=read_early(file)), want)
    assert not [name for name in asked if "norm" not in name and name != "embedding.weight"]


@pytest.mark.parametrize("how", ["changed", "cut", "replaced"])
def test_early_reading_of_a_damaged_file_is_found_out(
    how: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    want = logits(folder, tmp_path, "int8")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.chmod(0o600)
    if how == "changed":
        file.write_bytes(whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:])
    if how == "cut":  # after it was mapped: who touched the end of it would die
        native = library()
        assert native is not None
        early = ReadAhead(file, native_library(native.isa))
        os.truncate(file, len(whole) // 2)
        early.begin(2)
        early.finish()
        assert early._failed.value
    else:
        early = read_early(file)
    if how == "replaced":  # with other bytes that only a second look at the file can tell
        other = tmp_path / "other"
        other.write_bytes(whole)
        other.replace(file)
    with caplog.at_level(logging.WARNING):
        assert torch.equal(logits(folder, tmp_path, "int8", ahead=early), want)
    assert ("are not used and taken away" in caplog.text) == (how != "replaced")


def test_sums_are_those_of_the_definition(tmp_path: Path) -> None:
    """Of parts that end in the middle of a page, read in several pieces."""
    place = KeptWeights(tmp_path / "x.packed", LIMIT)
    parts = [torch.randint(0, 256, (size,), dtype=torch.uint8) for size in (7, 4096, 20_001)]
    place.add("a", parts)
    place.close(is_whole=True)
    early = read_early(tmp_path / "x.packed")
    for part, (begin, size) in zip(parts, sorted(early._numbers), strict=True):
        found, total = early.part(begin, size)
        assert torch.equal(found, part) and total == checksum(part)
    early.close()


def test_the_engine_finds_the_file_that_the_model_writes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUIRE_CACHE_DIR", str(tmp_path))
    found: list[Path] = []
    begin = ahead.read_ahead
    monkeypatch.setattr(
        ahead, "read_ahead", lambda path, *rest: found.append(path) or begin(path, *rest)
    )
    for _ in range(2):
        LLM(str(folder), max_model_len=64, packed_weights_gib=1, skip_tokenizer_init=True)
    (file,) = (tmp_path / "packed").iterdir()
    assert found == [file, file]


def test_experts_are_kept(tmp_path: Path, asked: list[str]) -> None:
    config = MOE_CASES["glm4_moe_plain"].config
    folder = harness.write_checkpoint(tmp_path / "model", config)
    want = logits(folder, None, "int4_g32")
    logits(folder, tmp_path / "kept", "int4_g32")
    asked.clear()
    assert torch.equal(logits(folder, tmp_path / "kept", "int4_g32"), want)
    assert not [name for name in asked if "experts" in name]


def test_another_form_file_or_isa_has_a_file_of_its_own(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for number, quantization in enumerate((None, "int8", "int4")):
        logits(copy, tmp_path / "kept", quantization)
        assert len(list((tmp_path / "kept").iterdir())) == number + 1
    os.utime(copy / "model.safetensors", (1, 1))
    logits(copy, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 4
    with using("portable"):
        logits(copy, tmp_path / "kept")
    assert len(list((tmp_path / "kept").iterdir())) == 5


@pytest.mark.parametrize("place", ["head", "numbers", "index", "end", "empty"])
def test_a_damaged_file_is_taken_away_and_made_again(
    place: str, folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    want = logits(folder, tmp_path, "int8")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    assert file.stat().st_mode & 0o777 == 0o400
    file.chmod(0o600)
    at = {"head": 3, "numbers": len(whole) // 2, "index": len(whole) - 9}.get(place)
    if at is None:
        file.write_bytes(b"" if place == "empty" else whole[: len(whole) // 2])
    else:
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
    with caplog.at_level(logging.WARNING):
        assert torch.equal(logits(folder, tmp_path, "int8"), want)
    assert "are not used and taken away" in caplog.text
    assert torch.equal(logits(folder, tmp_path, "int8"), want)
    assert [path.read_bytes() == whole for path in tmp_path.iterdir()] == [True]


def test_a_disk_that_is_full_costs_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The system refuses to write more than 100,000 bytes to a file."""
    want, before = logits(folder, None), resource.getrlimit(resource.RLIMIT_FSIZE)
    with caplog.at_level(logging.WARNING):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
        try:
            found = logits(folder, tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert torch.equal(found, want) and "are not kept in" in caplog.text
    assert not list(tmp_path.iterdir())


def test_files_have_no_more_bytes_than_are_allowed(folder: Path, tmp_path: Path) -> None:
    logits(folder, tmp_path)
    (first,) = tmp_path.iterdir()
    size = first.stat().st_size
    os.utime(first, (1, 1))
    logits(folder, tmp_path, "int8", limit=size + 1000)  # the other goes
    assert first not in list(tmp_path.iterdir()) and len(list(tmp_path.iterdir())) == 1
    logits(folder, tmp_path / "none", limit=1000)
    assert not list((tmp_path / "none").iterdir())


def test_a_folder_that_cannot_be_made_costs_a_warning(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        logits(folder, tmp_path / "file" / "kept")
    assert "are not kept in" in caplog.text


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    kept = KeptWeights(tmp_path / "one.packed", LIMIT)
    kept.add("a", [torch.arange(64, dtype=torch.uint8)])
    kept.close(is_whole=False)
    assert not list(tmp_path.iterdir())


def test_the_sum_sees_bytes_and_places() -> None:
    data = torch.randint(0, 256, (20_000,), generator=torch.Generator().manual_seed(1))
    data = data.to(torch.uint8)
    before = checksum(data)
    for at in (0, 4096, 12345, 19_999):
        other = data.clone()
        other[at] ^= 1
        assert checksum(other) != before
    assert checksum(torch.cat((data[4096:8192], data[:4096], data[8192:]))) != before


@pytest.mark.parametrize("size", [-1.0, float("nan"), float("inf")])
def test_sizes_that_are_none_are_refused(size: float) -> None:
    with pytest.raises(SettingsError, match=r"packed_weights_gib is .* from 0 on"):
        LLM("quire/models/demo", packed_weights_gib=size, max_model_len=64)
