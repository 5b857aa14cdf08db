"""Every registered architecture computes what Transformers computes, and the comparison can see every field."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Any

import pytest
import torch

from quire.models.architectures import bart, bert, bert_kin, bert_rope, t5
from quire.models.fold import SETS
from quire.models.hf_config import HfConfig
from quire.models.names import WeightMap, expand
from quire.models.parameters import NORM_PLACES, parameters
from quire.models.registry import ARCHITECTURES, known_as
from quire.models.spec import (
    AfterBlock,
    Attention,
    Compressed,
    DecoderSpec,
    LayerSpec,
    LongRopeScaling,
    Mla,
    Rope,
    SideBySide,
    Streams,
    YarnScaling,
)
from quire.ops.registry import Table
from quire.protocol.errors import ModelLoadError
from tests.models import harness
from tests.models.conftest import Built
from tests.models.families import CASES
from tests.models.families_zoo import NEVER_SEEN

TOLERANCE = 1e-4
VISIBLE = 100 * TOLERANCE
FAMILIES = ["llama", "qwen3", "gemma2", "granite", "olmo2", "cohere", "gpt2", "opt", "gpt_neox"]
FAMILIES += ["qwen2_moe", "granite_moe", "deepseek_v3", "lfm2", "mamba", "falcon_h1", "nemotron_h"]
FAMILIES += ["qwen3_next", "minimax", "rwkv", "recurrent_gemma"]
"""One case for each layer class, kind of norm and feed-forward part."""


OTHERS = {name for family in (bert, bert_kin, bert_rope, bart, t5) for name in family.ARCHITECTURES}
DECODERS = set(ARCHITECTURES) - OTHERS
"""Encoders are compared in `test_pooling.py`, encoder-decoder models in `test_seq2seq.py`."""


def test_every_architecture_has_a_case() -> None:
    named = {known_as(case.config["architectures"][0]) for case in CASES.values()}
    assert named == DECODERS


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(name: str, built: Callable[[str], Built]) -> None:
    it = built(name)
    assert it.theirs.std() > 1, "weights are too small for the test to see anything"
    decoder = harness.load(it.description, max_len=it.case.max_len)
    ours = harness.our_logits(decoder, it.ids, max_len=it.case.max_len)
    torch.testing.assert_close(ours, it.theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reference_operations_give_the_same_model(
    name: str, built: Callable[[str], Built]
) -> None:
    it = built(name)
    table = Table(overrides={"all": "reference"})
    decoder = harness.load(it.description, max_len=it.case.max_len, table=table)
    assert {binding.provider for binding in table.bindings} == {"reference"}
    ours = harness.our_logits(decoder, it.ids, max_len=it.case.max_len)
    torch.testing.assert_close(ours, it.theirs, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_chunks_give_the_same_bits(name: str, built: Callable[[str], Built]) -> None:
    it = built(name)
    decoder = harness.load(it.description, max_len=it.case.max_len)
    whole = harness.our_logits(decoder, it.ids, max_len=it.case.max_len)
    cut = harness.our_logits(decoder, it.ids, max_len=it.case.max_len, chunk=37)
    assert torch.equal(whole, cut)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_stays_near_float32(name: str, built: Callable[[str], Built]) -> None:
    """As near as Transformers in bfloat16 does, with room for another order of roundings."""
    it = built(name)
    decoder = harness.load(it.description, max_len=it.case.max_len, dtype=torch.bfloat16)
    ours = harness.our_logits(decoder, it.ids, max_len=it.case.max_len)
    theirs = harness.their_logits(it.description.path, it.ids, dtype=torch.bfloat16)
    assert (ours - it.theirs).square().mean() <= 1.5 * (theirs - it.theirs).square().mean()


def plain_value(owner: Any, name: str) -> Any:
    """What the field would be in the plain layer, or another value where there is none."""
    field = next(field for field in fields(owner) if field.name == name)
    value = getattr(owner, name)
    if name in ("pairs", "rounds"):  # without them tensors have other shapes
        return type(value)(value / 2)
    if field.default is not MISSING:
        return field.default
    if isinstance(owner, Streams):
        return not value if name == "scaled" else (value + 1) % owner.count
    if name == "rope" and value is None:
        return Rope(dim=owner.head_size)
    if isinstance(owner, Mla | Compressed) and name == "rope":
        return replace(value, theta=2 * value.theta)
    if isinstance(value, tuple):
        return tuple(2 * number for number in value)
    return value * 2 if isinstance(value, int | float) else None


def mutations(spec: DecoderSpec) -> Iterator[tuple[str, DecoderSpec]]:
    """The description with one field changed, for every field that is not as in the plain layer."""
    for name in changed(spec):
        yield name, replace(spec, **{name: plain_value(spec, name)})
    for name in changed(spec.streams):
        streams = replace(spec.streams, **{name: plain_value(spec.streams, name)})
        yield f"streams.{name}", replace(spec, streams=streams)
    parts: dict[str, Callable[[Any], tuple[Any, Callable[[Any], Any]]]] = {
        "layer": lambda layer: (layer, lambda new: new),
        "mixer": lambda layer: (layer.mixer, lambda new: replace(layer, mixer=new)),
        "first": lambda layer: (part_of(layer, 0), lambda new: with_part(layer, 0, new)),
        "second": lambda layer: (part_of(layer, 1), lambda new: with_part(layer, 1, new)),
        "feed_forward": lambda layer: (
            layer.feed_forward,
            lambda new: replace(layer, feed_forward=new),
        ),
        "picks": lambda layer: (
            getattr(layer.mixer, "picks", None),
            lambda new: replace(layer, mixer=replace(layer.mixer, picks=new)),
        ),
        "indexer": lambda layer: (
            getattr(layer.mixer, "indexer", None),
            lambda new: with_indexer(layer, new),
        ),
        "rope": lambda layer: (
            rope_of(layer),
            lambda new: replace(layer, mixer=replace(layer.mixer, rope=new)),
        ),
        "scaling": lambda layer: (
            rope_of(layer) and rope_of(layer).scaling,
            lambda new: replace(
                layer,
                mixer=replace(layer.mixer, rope=replace(layer.mixer.rope, scaling=new)),
            ),
        ),
    }
    for part, lens in parts.items():
        names = {name: None for layer in spec.layers for name in changed(lens(layer)[0])}
        for name in names:
            layers = []
            for layer in spec.layers:
                owner, put = lens(layer)
                if name in changed(owner):
                    layer = put(replace(owner, **{name: plain_value(owner, name)}))
                layers.append(layer)
            yield f"{part}.{name}", replace(spec, layers=tuple(layers))


def rope_of(layer: LayerSpec) -> Any:
    """The positions of a layer that has one mixer of attention."""
    return getattr(layer.mixer, "rope", None)


def with_indexer(layer: LayerSpec, indexer: Any) -> LayerSpec:
    """The layer with another of what picks tokens for its attention."""
    if isinstance(layer.mixer, Attention):
        return replace(layer, mixer=replace(layer.mixer, indexer=indexer))
    assert isinstance(layer.mixer, Mla) and layer.mixer.picks is not None
    picks = replace(layer.mixer.picks, indexer=indexer)
    return replace(layer, mixer=replace(layer.mixer, picks=picks))


def part_of(layer: LayerSpec, place: int) -> Any:
    """One of several mixers of a layer; None if it has one."""
    return layer.mixer.parts[place] if isinstance(layer.mixer, SideBySide | AfterBlock) else None


def with_part(layer: LayerSpec, place: int, part: Any) -> LayerSpec:
    """The layer with another of its several mixers."""
    assert isinstance(layer.mixer, SideBySide | AfterBlock)
    parts = tuple(part if i == place else one for i, one in enumerate(layer.mixer.parts))
    return replace(layer, mixer=layer.mixer.with_parts(parts))


SHAPES = {"vocab_size", "hidden_size", "max_position_embeddings", "num_heads", "num_kv_heads"}
SHAPES |= {
    "num_experts",
    "num_identity",
    "head_size",
    "q_rank",
    "kv_rank",
    "kernel",
    "key_heads",
    "key_size",
    "value_size",
    "rank",
    "by_channel",
    "nope_size",
    "out_size",
    "width",
    "gated",
    "router_float32",
    "dim",
    "max_len",
    "layers",
    "mixer",
    "feed_forward",
    "parts",
    "inner",
    "state_size",
    "step_rank",
    "num_groups",
    "layer_inputs",
    "count",
    "attention",
    "heads_rank",
    "value_head",
    "rate",
    "index_heads",
    "index_size",
    "out_groups",
    "out_rank",
}
"""Fields without a plain value: sizes, which tensors' shapes prove, and the parts walked by themselves."""


def changed(owner: Any) -> list[str]:
    """Names of the fields of a description part that the family sets to something of its own."""
    if not is_dataclass(owner):
        return []
    names = []
    unused = {"rope"} if isinstance(owner, Mla) and not owner.turned else set()
    for field in fields(owner):
        if field.name == "placement" and None in (owner.mixer, owner.feed_forward):
            continue  # a layer of one part has one place for its norm
        required = field.default is MISSING
        if field.name not in SHAPES | unused and (
            required or getattr(owner, field.name) != field.default
        ):
            names.append(field.name)
    return names


def spec_of(config: dict[str, Any]) -> DecoderSpec:
    return ARCHITECTURES[known_as(config["architectures"][0])].describe(HfConfig(config))


def has_one_group(config: dict[str, Any]) -> bool:
    """Whether all heads share k and v: taking them apart then changes nothing."""
    return any(mixer.num_kv_heads == 1 for mixer in spec_of(config).attentions[:1])


def all_mutations() -> list[Any]:
    return [
        pytest.param(name, field, id=f"{name}-{field}")
        for name, case in CASES.items()
        for field, _ in mutations(spec_of(case.config))
        if field not in case.unseen
    ]


def forgiving(names: WeightMap, spec: DecoderSpec, original: DecoderSpec) -> WeightMap:
    """The map that ignores the tensors which only the original description uses.

    Norms that only the wrong description has take the weights of a norm that it has not.
    """
    had = {piece.source for found in expand(names, original).values() for piece in found}
    placements = {None, original.layers[0].placement}
    if len({layer.placement for layer in original.layers}) == 1:
        rules = (replace(it, placement=None) for it in names.rules if it.placement in placements)
        names = replace(names, rules=tuple(rules))
    if spec.layers[0].placement != original.layers[0].placement:
        for place in NORM_PLACES[spec.layers[0].placement]:
            names = with_norm(names, place, original.layers[0].placement)
    used = {piece.source for found in expand(names, spec).values() for piece in found}
    return replace(names, ignored=(*names.ignored, *sorted(had - used)))


def with_norm(names: WeightMap, place: str, placement: str) -> WeightMap:
    """The map with rules for the norm `place`, taken from a like one of another placement."""
    had = NORM_PLACES[placement]
    if place in had:
        return names
    part = place.removeprefix("before_").removeprefix("after_")
    like = f"after_{part}" if f"after_{part}" in had else had[0]
    rules = tuple(
        replace(rule, target=rule.target.replace(f"norm_{like}.", f"norm_{place}."))
        for rule in names.rules
        if f"norm_{like}." in rule.target
    )
    kept = tuple(rule for rule in names.rules if f"norm_{place}." not in rule.target)
    return replace(names, rules=kept + rules)


def test_what_a_case_cannot_show_another_one_does() -> None:
    for name, case in CASES.items():
        fields = {field for field, _ in mutations(spec_of(case.config))}
        assert case.unseen <= fields, name
        others = [
            other
            for other in CASES.values()
            if other.config["architectures"] == case.config["architectures"] and other is not case
        ]
        for field in case.unseen - NEVER_SEEN.get(case.config["architectures"][0], frozenset()):
            assert any(
                field in dict(mutations(spec_of(other.config))) and field not in other.unseen
                for other in others
            ), (name, field)


def has_several_placements(spec: DecoderSpec) -> bool:
    """Whether norms stand elsewhere in some layers, so that in one place all of them have no weights."""
    return len({layer.placement for layer in spec.layers}) > 1


def cannot_be_built(field: str, original: DecoderSpec) -> bool:
    """Whether a field tells which weights there are, so that with another value some are missing."""
    keys_alone = any(getattr(one, "values", "") == "normed_keys" for one in original.mixers)
    always_shared = any(getattr(one.feed_forward, "norm_eps", None) for one in original.layers)
    always_shared |= original.has_shortcuts
    by_token = any(getattr(one.feed_forward, "hashed", False) for one in original.layers)
    always_shared |= by_token
    return (
        field in ("mixer.shares", "streams", "feed_forward.latent", "picks.indexer")
        or field in ("mixer.home", "mixer.use", "mixer.gate_heads", "mixer.told")
        or (field == "layer.placement" and has_several_placements(original))
        or (field == "layer.placement" and original.streams is not None)
        or (field == "layer.norm" and original.keeps_embedding)
        or (field == "mixer.values" and keys_alone)
        or (field == "norm" and original.norm == "none")
        or (field == "feed_forward.shared_width" and always_shared)
        or (field == "feed_forward.top_k" and by_token)
    )


@pytest.mark.parametrize(("name", "field"), all_mutations())
def test_a_wrong_field_shows(name: str, field: str, built: Callable[[str], Built]) -> None:
    it = built(name)
    original = it.description.spec
    spec = dict(mutations(original))[field]
    names = ARCHITECTURES[it.description.architecture].names
    if field == "tie_head":
        with pytest.raises(
            ModelLoadError, match=r"lm_head|embed_out|final_proj|output_proj|decoder.weight"
        ):
            harness.load(it.description, max_len=it.case.max_len, spec=spec)
        return
    if cannot_be_built(field, original):
        with pytest.raises((ModelLoadError, ValueError, KeyError)):
            harness.load(it.description, max_len=it.case.max_len, spec=spec)
        return
    names = forgiving(names, spec, original)
    decoder = harness.load(it.description, max_len=it.case.max_len, spec=spec, names=names)
    ours = harness.our_logits(decoder, it.ids, max_len=it.case.max_len)
    assert (ours - it.theirs).abs().max() > VISIBLE


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        (name, index)
        for name, case in CASES.items()
        for index, rule in enumerate(
            ARCHITECTURES[known_as(case.config["architectures"][0])].names.rules
        )
        if rule.fold not in ("none", "paired_rows", *SETS)  # without which the shape is another
        and not (rule.fold == "gather_heads" and has_one_group(case.config))
        and rule.target.replace("{layer}", "0") in parameters(spec_of(case.config))
    ],
)
def test_a_missing_fold_shows(name: str, rule: int, built: Callable[[str], Built]) -> None:
    it = built(name)
    names = ARCHITECTURES[it.description.architecture].names
    rules = list(names.rules)
    rules[rule] = replace(rules[rule], fold="none")
    decoder = harness.load(
        it.description, max_len=it.case.max_len, names=replace(names, rules=tuple(rules))
    )
    ours = harness.our_logits(decoder, it.ids, max_len=it.case.max_len)
    assert not (ours - it.theirs).abs().max() <= VISIBLE  # growing states end in NaN


@pytest.mark.parametrize(("name", "other"), [("llama", "gelu"), ("gemma2", "gelu")])
def test_the_other_gelu_shows(name: str, other: str, built: Callable[[str], Built]) -> None:
    """Both curves differ by less than 0.001, so only that parity fails is asked."""
    it = built(name)
    layers = tuple(
        replace(layer, feed_forward=replace(layer.feed_forward, activation=other))
        for layer in it.description.spec.layers
    )
    spec = replace(it.description.spec, layers=layers)
    decoder = harness.load(it.description, max_len=it.case.max_len, spec=spec)
    ours = harness.our_logits(decoder, it.ids, max_len=it.case.max_len)
    assert (ours - it.theirs).abs().max() > 10 * TOLERANCE


def test_the_mutations_reach_every_kind_of_field() -> None:
    seen = {field for case in CASES.values() for field, _ in mutations(spec_of(case.config))}
    wanted = {"embedding_scale", "logit_softcap", "tie_head", "norm_eps", "norm"}
    wanted |= {"learned_positions", "logit_scale"}
    wanted |= {f"layer.{name}" for name in ("placement", "norm", "norm_eps", "residual_scale")}
    wanted |= {f"mixer.{name}" for name in ("scale", "qkv_bias", "out_bias", "qk_norm", "norm_eps")}
    wanted |= {"mixer.window", "mixer.softcap", "mixer.rope"}
    wanted |= {"feed_forward.activation", "feed_forward.bias"}
    wanted |= {f"feed_forward.{name}" for name in ("top_k", "normalize")}
    wanted |= {"feed_forward.shared_width", "feed_forward.shared_gate"}
    wanted |= {f"rope.{field.name}" for field in fields(Rope)} - {"rope.dim"}
    wanted |= {f"scaling.{field.name}" for field in fields(YarnScaling)}
    wanted |= {f"scaling.{field.name}" for field in fields(LongRopeScaling)}
    wanted |= {"scaling.low_freq_factor", "scaling.high_freq_factor"}
    assert wanted <= seen, wanted - seen
