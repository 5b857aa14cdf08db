"""The native library: which file is used, lists of calls, and every ISA against the formulas.

The best ISA's operations are walked with all other providers in `test_table.py` and `test_rows.py`.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from quire.hardware import kernels
from quire.ops.cpu import library
from quire.ops.cpu.checks import check
from quire.ops.cpu.limits import dot_rate
from quire.ops.cpu.structs import NUMBERS, STRUCTS, header
from quire.ops.embedding import EMBEDDING
from quire.ops.linear import LINEAR
from quire.ops.registry import Op, Provider, providers
from tests.ops import test_rows, test_table
from tests.ops.cases import DTYPES, Case, linear

ISAS = library.usable()
OTHERS = ISAS[1:]
NATIVE = [param for param in test_table.WALK if param.values[1].name == "cpu"]  # type: ignore[union-attr]

if not ISAS:
    pytest.skip("there is no native library in this installation", allow_module_level=True)


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_the_header_is_current() -> None:
    path = Path(__file__).parents[2] / "csrc" / "include" / "quire_ops.h"
    assert path.read_text() == header()


@pytest.mark.parametrize("isa", OTHERS)
@pytest.mark.parametrize(("op", "provider", "dtype", "case"), NATIVE)
def test_values_on_other_isas(op: Op, provider: Provider, dtype: str, case: Case, isa: str) -> None:
    with library.using(isa):
        test_table.test_values(op, provider, dtype, case)


@pytest.mark.parametrize("isa", OTHERS)
@pytest.mark.parametrize(("op", "provider", "dtype", "case"), NATIVE)
def test_rows_on_other_isas(op: Op, provider: Provider, dtype: str, case: Case, isa: str) -> None:
    with library.using(isa):
        test_rows.test_rows_are_independent(op, provider, dtype, case)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(2048, 1030), (31, 7), (5000, 96), (33, 4096)])
def test_products_of_any_number_of_rows(
    sizes: tuple[int, int], dtype: str, isa: str, threads: int
) -> None:
    case = linear(*sizes, bias=True, delta=False)
    provider = providers(LINEAR)["cpu"]
    rows = case.draw(1000, DTYPES[dtype])
    with library.using(isa):
        fixed = case.fixed(DTYPES[dtype])
        together = case.call(provider, rows, fixed, None)
        torch.set_num_threads(1)
        for count in (1, 2, 7, 12, 13, 16, 17, 24, 25, 33, 48, 300, 481):
            some = {name: tensor[:count] for name, tensor in rows.items()}
            assert torch.equal(case.call(provider, some, fixed, None), together[:count]), count


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_embedding_reads_the_rows_of_a_packed_head(dtype: str, isa: str) -> None:
    table = torch.randn(70, 45).to(DTYPES[dtype])
    ids = torch.tensor([69, 0, 31, 32, 5, 70, -1])
    with library.using(isa):
        embedding = providers(EMBEDDING)["cpu"]
        shared = embedding.share(providers(LINEAR)["cpu"].pack(table))
        rows, scaled = (torch.empty(7, 45, dtype=DTYPES[dtype]) for _ in range(2))
        embedding.run(ids, shared, out=rows)
        embedding.run(ids, shared, scale=3.0, out=scaled)
    assert torch.equal(rows[:5], table[ids[:5]])
    assert torch.equal(scaled[:5], embedding.run(ids[:5], table, scale=3.0))
    assert rows[5:].isnan().all() and scaled[5:].isnan().all()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_rate_of_registers_is_above_that_of_one_number_a_cycle(dtype: str, isa: str) -> None:
    with library.using(isa):
        assert 1e8 < dot_rate(dtype) < 1e16


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("operation", "field", "fault"),
    [
        ("linear", "K", "its products of 1 rows are"),
        ("linear_quantized", "K", "its integer products of 1 rows are"),
        ("attention", "D", "its attention is"),
    ],
)
def test_a_library_that_leaves_numbers_out_is_refused(
    isa: str, operation: str, field: str, fault: str
) -> None:
    loaded = library.load(isa)

    def run(number: int, args: ctypes.Structure, threads: int) -> None:
        if number == NUMBERS[operation]:
            setattr(args, field, getattr(args, field) - 32)
        loaded.run(number, args, threads)

    check(loaded.run)
    with pytest.raises(OSError, match=f"{fault} wrong"):
        check(run)


def test_an_unknown_operation_in_a_list_runs_nothing() -> None:
    args = STRUCTS["probe_dot"](steps=1)
    calls = library.CallList([(NUMBERS["probe_dot"], args), (9999, args)])
    with pytest.raises(ValueError, match="call 1 of 2 names an unknown operation"):
        library.native().run_list(calls)


def _chosen(isa: str) -> str:
    code = "from quire.ops.cpu.library import library as l; f = l(); print(f.isa if f else None)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            "PATH": "/usr/bin:/bin",
            "QUIRE_CPU_KERNELS": str(kernels.FOLDER),
            "QUIRE_CPU_ISA": isa,
        },
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() + done.stderr.strip()


@pytest.mark.parametrize("isa", ISAS)
def test_an_isa_can_be_forced(isa: str) -> None:
    assert _chosen(isa) == isa


def test_none_means_torch_and_nonsense_is_refused() -> None:
    assert _chosen("none") == "None"
    assert "QUIRE_CPU_ISA is 'sse9'; on this machine it may be one of" in _chosen("sse9")


def test_an_installation_without_libraries_warns_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kernels, "FOLDER", tmp_path)
    library.library.cache_clear()
    try:
        assert library.library() is None and library.library() is None
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "Install a C++ compiler" in caplog.text
    finally:
        library.library.cache_clear()
