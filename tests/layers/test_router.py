"""A router's choice against plain formulas in float64."""

from __future__ import annotations

import pytest
import torch

from quire.layers.moe import Router
from quire.ops.arena import Arena
from quire.ops.moe import RouteRule
from quire.ops.registry import Table

EXPERTS, SIZE, CHOSEN = 64, 96, 6


def noise(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def chosen(router_dtype: torch.dtype, *, overrides: dict[str, str]) -> tuple[int, int]:
    """Tokens, and those whose experts are the ones of exact arithmetic on the same numbers."""
    x = noise(300, SIZE, seed=1).to(torch.bfloat16)
    weight = noise(EXPERTS, SIZE, seed=2) * SIZE**-0.5
    router = Router(
        Table(overrides=overrides),
        "r",
        size=SIZE,
        num_experts=EXPERTS,
        rule=RouteRule(CHOSEN, scoring="sigmoid"),
        bias=False,
        choice_bias=False,
        dtype=torch.bfloat16,
        router_dtype=router_dtype,
    )
    router.load({"r.router.weight": weight.to(router_dtype)}.__getitem__)
    with torch.inference_mode():
        ids, _ = router(x, Arena(torch.device("cpu"), chunk_bytes=1 << 20))
    want = (x.double() @ weight.double().t()).topk(CHOSEN).indices
    same = (ids.long().sort(-1).values == want.sort(-1).values).all(-1)
    return len(x), int(same.sum())


@pytest.mark.parametrize("provider", ["cpu", "reference"])
def test_a_router_in_float32_chooses_as_exact_arithmetic_does(provider: str) -> None:
    overrides = {} if provider == "cpu" else {"all": "reference"}
    tokens, same = chosen(torch.float32, overrides=overrides)
    assert same == tokens
    _, rounded = chosen(torch.bfloat16, overrides=overrides)
    assert rounded < tokens, "the case has no choices that are near ties"
