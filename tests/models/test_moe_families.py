"""What config.json may say of mixtures of experts and latent attention, and what is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quire.models.hf_config import HfConfig
from quire.models.names import match
from quire.models.registry import ARCHITECTURES, known_as
from quire.models.spec import DecoderSpec, LongRopeScaling, Moe
from quire.protocol.errors import ModelLoadError
from tests.models.conftest import Built
from tests.models.families import CASES
from tests.models.published import config
from tests.models.test_names import stored_shapes


def described(values: dict[str, Any]) -> DecoderSpec:
    return ARCHITECTURES[known_as(values["architectures"][0])].describe(HfConfig(values))


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        ("deepseek_v3", "model.layers.2.self_attn.o_proj.weight"),
        ("deepseek_v3", "model.layers.13.eh_proj.weight"),
        ("glm4_moe", "model.layers.2.enorm.weight"),
        ("ernie4_5_moe", "model.mtp_block.0.self_attn.o_proj.weight"),
    ],
)
def test_what_drafts_further_tokens_is_left_unread(
    name: str, extra: str, built: Callable[[str], Built]
) -> None:
    it = built(name)
    names, shapes = ARCHITECTURES[it.description.architecture].names, stored_shapes(it)
    assert match(names, it.description.spec, shapes | {extra: (64, 64)}) == match(
        names, it.description.spec, shapes
    )


def test_a_tensor_without_use_in_a_layer_is_refused(built: Callable[[str], Built]) -> None:
    it = built("deepseek_v3")
    names = ARCHITECTURES[it.description.architecture].names
    with pytest.raises(ModelLoadError, match=r"layers\.1\.eh_proj"):
        match(
            names,
            it.description.spec,
            stored_shapes(it) | {"model.layers.1.eh_proj.weight": (64, 64)},
        )


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("deepseek_v3", {"n_group": 5}, "n_group.*12 experts"),
        ("deepseek_v3", {"topk_group": 4}, "topk_group.*3 groups"),
        ("deepseek_v3", {"topk_group": 1, "num_experts_per_tok": 5}, "of which 5 are chosen"),
        ("deepseek_v3", {"moe_layer_freq": 2}, "moe_layer_freq"),
        ("deepseek_v3", {"scoring_func": "softmax"}, "scoring_func"),
        ("deepseek_v2", {"topk_method": "noaux_tc"}, "topk_method"),
        ("deepseek_v2", {"norm_topk_prob": True}, "norm_topk_prob"),
        ("glm4_moe_lite", {"mlp_layer_types": ["dense"]}, "mlp_layer_types"),
        ("glm4_moe_lite", {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
        ("gpt_oss", {"swiglu_alpha": 1.5}, "swiglu_alpha"),
        ("minimax_m2", {"attn_type_list": [1, 0]}, "attn_type_list"),
        ("minimax_m2", {"use_routing_bias": False}, "use_routing_bias"),
        ("hunyuan_moe", {"moe_topk": [2, 3]}, "moe_topk"),
        ("hunyuan_moe", {"use_cla": True}, "use_cla"),
        ("ernie4_5_moe", {"use_bias": True}, "use_bias"),
        ("phimoe", {"num_experts_per_tok": 3}, "num_experts_per_tok"),
        ("dbrx", {"n_heads": 5}, "n_heads"),
        ("olmoe", {"clip_qkv": 8.0}, "clip_qkv"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    case: str, changes: dict[str, Any], message: str
) -> None:
    described(CASES[case].config)
    with pytest.raises(ModelLoadError, match=message):
        described(CASES[case].config | changes)


def test_lists_with_one_entry_for_each_layer_say_what_one_number_says() -> None:
    values = CASES["hunyuan_moe"].config
    listed = values | {"moe_topk": [3, 3], "num_shared_expert": [1, 1], "num_experts": 6}
    assert described(listed) == described(values)


def test_the_name_of_a_config_class_does_not_matter() -> None:
    values = config("kimi-k2-instruct")
    assert described(values | {"model_type": "kimi_k2"}) == described(values)


def test_long_positions_of_phimoe_take_the_factor_that_the_file_states() -> None:
    """Not compared with Transformers, which has one factor for each length and never the long list."""
    factors = [1.0 + 0.1 * pair for pair in range(8)]
    scaling = {
        "type": "longrope",
        "short_factor": factors,
        "long_factor": factors[::-1],
        "short_mscale": 1.24,
        "long_mscale": 1.24,
        "original_max_position_embeddings": 128,
    }
    values = CASES["phimoe"].config | {"rope_scaling": scaling}
    rope = described(values).layers[0].mixer.rope
    assert rope is not None
    assert isinstance(rope.scaling, LongRopeScaling)
    assert rope.scaling.attention_factor == 1.24
    assert rope.scaling.original_len == 128
    with pytest.raises(ModelLoadError, match="long_mscale"):
        described(values | {"rope_scaling": scaling | {"long_mscale": 1.3}})


def test_layers_of_experts_are_those_that_the_file_names() -> None:
    def kinds(values: dict[str, Any]) -> list[bool]:
        return [isinstance(layer.feed_forward, Moe) for layer in described(values).layers]

    ernie = CASES["ernie4_5_moe"].config | {"num_hidden_layers": 6}
    assert kinds(ernie) == [False, True, True, True, True, True]
    assert kinds(ernie | {"moe_layer_end_index": 3}) == [False, True, True, True, False, False]
    assert kinds(ernie | {"moe_layer_interval": 2}) == [False, True, False, True, False, True]
    deepseek = CASES["deepseek_v3"].config | {"num_hidden_layers": 3}
    assert kinds(deepseek | {"first_k_dense_replace": 0}) == [True, True, True]
    assert kinds(deepseek | {"first_k_dense_replace": 2}) == [False, False, True]
