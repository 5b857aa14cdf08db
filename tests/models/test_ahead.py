"""Weights packed before torch is there: what is packed, by whom it is taken, and that the bits are the same."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from quire.models.build import build_decoder
from quire.models.loading import ahead, native_threads
from quire.models.loading.ahead import Ahead, begin_ahead
from quire.models.registry import describe
from quire.ops.cpu.library import library
from quire.ops.registry import Table
from tests.models import harness
from tests.models.families import CASES

pytestmark = pytest.mark.skipif(library() is None, reason="no native library here")
FAMILIES = ["llama", "qwen3", "gemma2", "gpt2", "deepseek_v3", "mixtral", "bloom", "olmo2", "phi3"]
FAMILIES = [name for name in FAMILIES if name in CASES]


@pytest.fixture(autouse=True)
def _even_small_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "LEAST_BYTES", 1)
    monkeypatch.setattr(ahead, "_CALL_BYTES", 10_000)


def begun(folder: Path, dtype: str = "float32", threads: int = 2) -> Ahead | None:
    native = library()
    assert native is not None
    return begin_ahead(
        describe(str(folder)), dtype=dtype, isa=native.isa, is_plain=True, num_threads=threads
    )


def logits(folder: Path, packed: Ahead | None) -> torch.Tensor:
    decoder = build_decoder(
        describe(str(folder)),
        Table(),
        dtype=torch.float32,
        device=torch.device("cpu"),
        max_model_len=64,
        ahead=packed,
    )
    if packed is not None:
        packed.close()
    return harness.our_logits(decoder, [3, 7, 1, 9, 30], max_len=64)


def test_it_is_about_many_families() -> None:
    assert len(FAMILIES) > 5


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_packed_ahead_is_taken_and_has_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = harness.write_checkpoint(tmp_path, CASES[name].config)
    packed = begun(folder)
    taken: list[str] = []
    if packed is not None:
        give = packed.packed
        monkeypatch.setattr(packed, "packed", lambda n, room: taken.append(n) or give(n, room))  # type: ignore[func-returns-value]
        assert torch.equal(logits(folder, packed), logits(folder, None))
        assert sorted(f"{one}.weight" for one in taken) == sorted(packed._products)


def test_all_matrices_of_a_plain_model_are_packed(tmp_path: Path) -> None:
    whole = {"head_dim": 32, "intermediate_size": 96}
    folder = harness.write_checkpoint(tmp_path, CASES["llama"].config | whole)
    packed = begun(folder)
    assert packed is not None
    assert len(packed._products) == 4 * CASES["llama"].config["num_hidden_layers"] + 1
    packed.close()


def test_numbers_of_another_type_are_left_to_loading(tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path, CASES["llama"].config)
    assert begun(folder, dtype="bfloat16") is None


def test_one_that_is_closed_early_stops_and_lets_the_files_go(tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path, CASES["llama"].config)
    packed = begun(folder)
    assert packed is not None
    packed.close()
    packed.close()
    assert not packed._files and not packed._threads


def test_a_library_of_other_sources_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = harness.write_checkpoint(tmp_path, CASES["llama"].config)
    monkeypatch.setattr(native_threads, "VERSION", 7)
    with caplog.at_level(logging.DEBUG):
        assert begun(folder) is None
    assert "other sources" in caplog.text
