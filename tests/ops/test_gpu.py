"""On a GPU: every provider that takes its tensors, against the formula in float64, and row by row.

Attention is tested through whole models, in `tests/models/test_gpu.py`.
"""

from __future__ import annotations

import pytest
import torch

from quire.ops.registry import Op, Provider, Signature, load_all, operations, providers
from quire.ops.tolerances import TOLERANCES
from tests.gpu import NEEDS_GPU
from tests.ops.cases import CASES, DTYPES, Case, Tensors, result_dtype, wide
from tests.ops.test_rows import CUTS, part

load_all()
pytestmark = NEEDS_GPU

WALK = [
    pytest.param(op, provider, case, id=f"{op.name}-{provider.name}-{case.label}")
    for op in operations()
    for provider in providers(op).values()
    for case in CASES.get(op.name, [])
    if provider.accepts(Signature("float32", device="cuda")) is None
]


def on_gpu(tensors: Tensors) -> Tensors:
    return {name: tensor.to("cuda") for name, tensor in tensors.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("op", "provider", "case"), WALK)
def test_values_and_rows(op: Op, provider: Provider, case: Case, dtype: str) -> None:
    if (refusal := provider.accepts(Signature(dtype, device="cuda"))) is not None:
        pytest.skip(refusal)
    rows, fixed = case.draw(130, DTYPES[dtype]), case.fixed(DTYPES[dtype])
    want = case.want(wide(rows), wide(fixed))
    there, shared = on_gpu(rows), on_gpu(fixed)
    got = case.call(provider, part(there, 0, 130), shared, None)
    assert (got.device.type, got.dtype) == ("cuda", result_dtype(op.name, DTYPES[dtype]))
    tolerance = TOLERANCES[case.tolerance or op.name][dtype]
    torch.testing.assert_close(
        got.to("cpu").double(), want, rtol=tolerance.relative, atol=tolerance.absolute
    )
    if provider.row_invariant:
        for start, end in CUTS:
            some = case.call(provider, part(there, start, end), shared, None)
            assert torch.equal(some, got[start:end]), f"rows {start} to {end}"
