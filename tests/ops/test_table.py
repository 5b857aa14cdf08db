"""Every operation, every provider, every dtype against the formula in float64.

A provider is tested here the moment it registers. Independence of rows is in `test_rows.py`.
"""

from __future__ import annotations

import pytest
import torch

from quire.ops.cache import COPY_BLOCKS
from quire.ops.embedding import KNOWN_IDS
from quire.ops.registry import (
    Op,
    Provider,
    Signature,
    load_all,
    operations,
    providers,
)
from quire.ops.tolerances import TOLERANCES
from tests.ops.attention_cases import PROVIDERS, Cache, Shape, draw, formula, tolerance_of
from tests.ops.cases import CASES, DTYPES, Case, poisoned, result_dtype, wide

load_all()
ELSEWHERE = {
    "known_ids",
    "paged_attention",
    "pick_tokens",
    "picked_attention",
    "pick_blocks",
    "block_attention",
    "copy_blocks",
    "route",
    "route_sparse",
    "add_identity",
    "route_root",
    "route_tokens",
    "compressed_attention",
    "experts",
    "delta_rule",
    "short_conv",
    "causal_conv",
    "ssd_scan",
    "selective_scan",
    "group_norm_gated",
    "token_shift",
    "wkv",
    "gated_lru",
    "matrix_memory",
}  # below, in test_moe.py, test_compressed.py, test_delta_rule.py, test_scan.py, test_picks.py and test_block_picks.py


def test_ids_that_a_table_lacks_are_that_of_its_first_row() -> None:
    ids = torch.tensor([0, 29, 30, 4_000_000_000])
    found = providers(KNOWN_IDS)["reference"].run(ids, limit=30)
    assert found.tolist() == [0, 29, 0, 0]


SAMPLING = (
    "quire.ops.sample",
    "quire.ops.sample_edits",
    "quire.ops.logprobs",
)  # tested with the sampler
ROW_COUNTS = (1, 17, 64, 130)

WALK = [
    pytest.param(op, provider, dtype, case, id=f"{op.name}-{provider.name}-{dtype}-{case.label}")
    for op in operations()
    for provider in providers(op).values()
    for dtype in DTYPES
    for case in CASES.get(op.name, [])
    if provider.accepts(Signature(dtype)) is None
]


def test_every_operation_of_the_decoder_has_cases_and_tolerances() -> None:
    with_cases = set(CASES) | ELSEWHERE
    sampling = {
        op.name for op in operations() if type(providers(op)["reference"]).__module__ in SAMPLING
    }
    assert {op.name for op in operations()} - sampling == with_cases
    assert with_cases <= set(TOLERANCES)


@pytest.mark.parametrize(("op", "provider", "dtype", "case"), WALK)
def test_values(op: Op, provider: Provider, dtype: str, case: Case) -> None:
    tolerance = TOLERANCES[case.tolerance or op.name][dtype]
    fixed = case.fixed(DTYPES[dtype])
    for count in ROW_COUNTS:
        rows = case.draw(count, DTYPES[dtype])
        want = case.want(wide(rows), wide(fixed))
        got = case.call(provider, {name: rows[name].clone() for name in rows}, fixed, None)
        assert got.dtype == result_dtype(op.name, DTYPES[dtype])
        torch.testing.assert_close(
            got.double(), want, rtol=tolerance.relative, atol=tolerance.absolute
        )
        if case.has_out:
            out = poisoned(got.shape, got.dtype)
            assert case.call(provider, rows, fixed, out) is out
            assert torch.equal(out, got)


ATTENTION = [
    Shape(heads, kv_heads, head_size, value_size, block_size=block_size, window=window)
    for heads, kv_heads, head_size, value_size, block_size, window in (
        (2, 2, 16, 16, 8, None),
        (6, 2, 33, 20, 16, None),
        (4, 1, 64, 64, 32, 7),
        (5, 5, 96, 96, 64, 70),
        (4, 2, 256, 256, 128, None),
    )
]


@pytest.mark.parametrize(
    "shape", ATTENTION, ids=lambda s: f"H{s.heads}-K{s.kv_heads}-D{s.head_size}"
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("provider", sorted(PROVIDERS))
def test_attention_values(provider: str, dtype: str, shape: Shape) -> None:
    shape = Shape(**{**shape.__dict__, "dtype": DTYPES[dtype]})
    lengths = [1, 31, 32, 33, 65, 130]
    sequences = draw(shape, lengths)
    results = Cache(provider, shape, sequences).step(list(range(6)), lengths)
    tolerance = tolerance_of(provider, DTYPES[dtype])
    for sequence, got in zip(sequences, results):
        torch.testing.assert_close(
            got.double(),
            formula(shape, sequence, len(got)),
            rtol=tolerance.relative,
            atol=tolerance.absolute,
        )


@pytest.mark.parametrize("provider", providers(COPY_BLOCKS))
def test_blocks_are_copied_in_order(provider: str) -> None:
    copy = providers(COPY_BLOCKS)[provider]
    buffer = torch.randint(0, 256, (3, 50), dtype=torch.uint8)  # slabs of 3 blocks of 16, 2 over
    before = buffer.clone()
    result = copy.run(
        buffer, block_bytes=16, blocks_per_slab=3, sources=[1, 7, 4], targets=[7, 4, 0]
    )
    want = before.clone()
    want[2, 16:32] = before[0, 16:32]
    want[1, 16:32] = before[0, 16:32]
    want[0, 0:16] = before[0, 16:32]
    assert result is buffer
    assert torch.equal(buffer, want)
    with pytest.raises(ValueError, match="blocks are 0 to 8"):
        copy.run(buffer, block_bytes=16, blocks_per_slab=3, sources=[1], targets=[9])
    with pytest.raises(ValueError, match="2 source blocks but 1 target"):
        copy.run(buffer, block_bytes=16, blocks_per_slab=3, sources=[1, 2], targets=[3])


def test_an_unknown_activation_is_refused() -> None:
    act_mul = next(op for op in operations() if op.name == "act_mul")
    with pytest.raises(ValueError, match="unknown activation 'mish'; known: "):
        providers(act_mul)["reference"].run(torch.zeros(1, 4), act="mish")
