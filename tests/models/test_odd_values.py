"""Whatever stands in config.json, describing it ends in a description or in one sentence about a key."""

from __future__ import annotations

import math
from typing import Any

import pytest

from quire.models.hf_config import HfConfig
from quire.models.lengths import derived_max_len
from quire.models.parameters import parameters
from quire.models.registry import ARCHITECTURES, known_as
from quire.protocol.errors import ModelLoadError
from tests.models.families import CASES

LARGEST = (
    1000  # layers and experts beyond it are described, but their parameters are not listed here
)
ODD: tuple[Any, ...] = (
    *(None, -1, 0, 1, 2, 3, 7, 2**40, 1e300, math.nan, True, False, "x", [], {}, [1]),
    *([["a"]], [[["global"], 0]], {"a": 1}, {"type": "dynamic", "alpha": -1}),
    {"type": "x", "alpha": 2.0},
)


def outcome(values: dict[str, Any]) -> str:
    """The sentence of the error, or nothing."""
    name = known_as(values["architectures"][0])
    try:
        spec = ARCHITECTURES[name].describe(HfConfig(values))
    except ModelLoadError as error:
        return str(error)
    derived_max_len(spec)
    experts = sum(getattr(layer.feed_forward, "num_experts", 0) for layer in spec.layers)
    if len(spec.layers) + experts < LARGEST:
        parameters(spec)
    return ""


@pytest.mark.parametrize("name", CASES)
def test_an_odd_value_is_described_or_refused(name: str) -> None:
    config = CASES[name].config
    for key in config.keys() - {"architectures", "model_type"}:
        for value in ODD:
            outcome(config | {key: value})


@pytest.mark.parametrize("name", CASES)
def test_a_missing_key_has_a_default_or_is_named(name: str) -> None:
    config = CASES[name].config
    for key in config.keys() - {"architectures"}:
        said = outcome({other: value for other, value in config.items() if other != key})
        assert not said or "config.json: " in said


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("falcon", "hidden_size", 65),
        ("falcon_grouped", "num_kv_heads", 3),
        ("mpt", "n_heads", 5),
        ("gptj", "n_embd", 66),
        ("gpt_neo", "attention_types", [[["global"], 5]]),
        ("smollm3", "no_rope_layers", [1]),
        ("bloom", "apply_residual_connection_post_layernorm", True),
        ("chatglm", "rmsnorm", False),
        ("stablelm", "qk_layernorm", True),
    ],
)
def test_what_is_not_computed_is_refused_by_name(name: str, key: str, value: Any) -> None:
    said = outcome(CASES[name].config | {key: value})
    assert "config.json: " in said
    assert key in said or str(value) in said, said
