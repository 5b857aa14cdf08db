"""On a GPU: every architecture computes what Transformers computes on the CPU, in chunks too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from quire.ops.registry import Table
from tests.gpu import NEEDS_GPU
from tests.models import harness
from tests.models.conftest import Built
from tests.models.families import CASES
from tests.models.test_parity import FAMILIES, TOLERANCE

pytestmark = NEEDS_GPU


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(name: str, built: Callable[[str], Built]) -> None:
    it = built(name)
    gpu = torch.device("cuda")
    table = Table(device="cuda")
    decoder = harness.load(it.description, max_len=it.case.max_len, table=table, device=gpu)
    ours = harness.our_logits(decoder, it.ids, max_len=it.case.max_len, device=gpu)
    assert ours.device.type == "cuda"
    torch.testing.assert_close(ours.to("cpu"), it.theirs, rtol=0, atol=TOLERANCE)
    cut = harness.our_logits(decoder, it.ids, max_len=it.case.max_len, chunk=37, device=gpu)
    assert torch.equal(ours, cut)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_stays_near_float32(name: str, built: Callable[[str], Built]) -> None:
    it = built(name)
    gpu = torch.device("cuda")
    decoder = harness.load(
        it.description,
        max_len=it.case.max_len,
        dtype=torch.bfloat16,
        table=Table(device="cuda"),
        device=gpu,
    )
    ours = harness.our_logits(decoder, it.ids, max_len=it.case.max_len, device=gpu).to("cpu")
    theirs = harness.their_logits(it.description.path, it.ids, dtype=torch.bfloat16)
    assert (ours - it.theirs).square().mean() <= 1.5 * (theirs - it.theirs).square().mean()
