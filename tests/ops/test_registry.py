"""The table of operations: how a provider is chosen, overridden, shown; and the arena beside it.

Leaves the operations themselves to the other files.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from quire.ops import registry
from quire.ops.arena import Arena
from quire.ops.cpu import library
from quire.ops.linear import LINEAR
from quire.ops.norm import RMS_NORM
from quire.ops.registry import Op, Provider, Signature, Table, choose, declare, register
from quire.ops.report import render


@pytest.fixture
def op(monkeypatch: pytest.MonkeyPatch) -> Iterator[Op]:
    """A new operation with three providers, gone after the test."""
    registry.load_all()
    monkeypatch.setattr(registry, "_OPS", dict(registry._OPS))
    monkeypatch.setattr(registry, "_PROVIDERS", dict(registry._PROVIDERS))
    yield declare("twice", "pure", "run(x) -> 2 x")


def provider(label: str, refusal: str | None = None, invariant: bool = True) -> None:
    @register
    class One(Provider):
        op = "twice"
        name = label
        row_invariant = invariant

        def accepts(self, signature: Signature) -> str | None:
            return refusal if signature.dtype == "float16" else None

        def run(self, *args: Any, **kwargs: Any) -> str:
            return label


def test_the_fastest_that_accepts_is_taken(op: Op) -> None:
    provider("reference")
    provider("triton", refusal="no float16 here")
    table = Table()
    assert table.bind(op, "float32", C=4)() == "triton"
    assert table.bind(op, "float16", C=4)() == "reference"
    assert table.bindings[-1].refusals == (("triton", "no float16 here"),)
    table.bind(op, "float16", C=4)
    assert len(table.bindings) == 2


def test_rows_that_depend_on_their_batch_need_fast_math(op: Op) -> None:
    provider("cpu", invariant=False)
    provider("reference")
    assert Table().bind(op, "float32")() == "reference"
    assert Table(fast_math=True).bind(op, "float32")() == "cpu"


def test_overrides_choose_or_are_refused(op: Op) -> None:
    provider("reference")
    provider("torch", refusal="no float16 here")
    assert Table(overrides={"twice": "reference"}).bind(op, "float32")() == "reference"
    assert Table(overrides={"all": "reference"}).bind(op, "float32")() == "reference"
    assert Table(overrides={"all": "cpu"}).bind(op, "float32")() == "torch", "it has none of cpu"
    with pytest.raises(ValueError, match="refuses float16 plain cpu: no float16 here"):
        Table(overrides={"twice": "torch"}).bind(op, "float16")
    with pytest.raises(ValueError, match="has no provider 'cpu'"):
        Table(overrides={"twice": "cpu"}).bind(op, "float32")
    with pytest.raises(ValueError, match="unknown operation 'thrice'"):
        Table(overrides={"thrice": "torch"})
    with pytest.raises(ValueError, match="unknown provider 'torhc'"):
        Table(overrides={"all": "torhc"})


def test_nobody_accepting_is_an_error(op: Op) -> None:
    provider("torch", refusal="no float16 here")
    with pytest.raises(ValueError, match="no provider of 'twice' accepts"):
        choose(op, Signature("float16"), wanted=None, fast_math=False)


def test_names_are_taken_once(op: Op) -> None:
    provider("torch")
    with pytest.raises(ValueError, match="two providers named 'torch'"):
        provider("torch")
    with pytest.raises(ValueError, match="declared twice"):
        declare("twice", "pure", "again")


def test_default_products_are_native_or_go_through_torch_on_cpu_only() -> None:
    expected = "cpu" if library.usable() else "torch"
    assert Table().bind(LINEAR, "bfloat16", N=8, K=8).provider.name == expected
    elsewhere = Table(device="cuda")
    assert elsewhere.bind(LINEAR, "bfloat16", N=8, K=8).provider.name == "reference"
    assert "on cpu only" in elsewhere.bindings[0].refusals[0][1]


def test_only_one_tape_records() -> None:
    table = Table()
    with table.record(), pytest.raises(RuntimeError, match="already recording"):
        with table.record():
            pass
    assert table.watcher is None


def test_the_report_shows_choices_and_refusals() -> None:
    table = Table(device="cuda")
    table.bind(LINEAR, "float32", N=8, K=16)
    table.bind(RMS_NORM, "float32", C=16)
    lines = render(table).splitlines()
    assert lines[0].split() == ["operation", "signature", "provider", "refused"]
    refusal = "cpu: it computes on cpu only, not on cuda"
    assert lines[1].startswith(
        f"linear     float32 plain cuda N=8 K=16  reference  {refusal}; torch"
    )
    assert lines[2] == f"rms_norm   float32 plain cuda C=16      reference  {refusal}"
    declared = render().splitlines()
    assert any(line.split()[:4] == ["linear", "packed", "cpu,", "torch,"] for line in declared)
    assert len(declared) == 1 + len(registry.operations())


def test_the_table_alone_brings_no_torch() -> None:
    code = "import sys, quire.ops.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_arena_repeats_its_addresses() -> None:
    arena = Arena(torch.device("cpu"), chunk_bytes=1024)

    def takes() -> list[int]:
        arena.reset()
        first = arena.take((3, 5), torch.bfloat16)
        mark = arena.mark()
        second = arena.take((100, 5), torch.float32)  # larger than a chunk
        arena.release(mark)
        third = arena.take((7,), torch.int64)
        assert first.shape == (3, 5)
        return [tensor.data_ptr() for tensor in (first, second, third)]

    once = takes()
    held = arena.num_bytes
    assert takes() == once
    assert arena.num_bytes == held
    assert all(address % 64 == 0 for address in once)
    assert once[0] + 64 == once[2], "what was released is given out again"


def test_live_parts_of_the_arena_do_not_overlap() -> None:
    arena = Arena(torch.device("cpu"), chunk_bytes=256)
    parts = [arena.take((n,), torch.int16).fill_(n) for n in (1, 31, 32, 33, 100, 300, 5)]
    for part in parts:
        assert bool((part == part.numel()).all())
