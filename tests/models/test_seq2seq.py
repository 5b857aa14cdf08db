"""Encoder-decoder architectures: parity with Transformers, tests that can see, weight maps, distances."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from quire.layers.distances import Buckets
from quire.models.hf_config import HfConfig
from quire.models.names import expand, match
from quire.models.registry import ARCHITECTURES, ModelLoadError, describe
from quire.models.spec import Attention, DecoderSpec, LayerSpec
from tests.models import seq2seq
from tests.models.test_parity import changed, plain_value

READ = [(7 * i * i + 3) % 90 + 5 for i in range(60)]
IDS = [0] + [(5 * i * i + 3) % 90 + 5 for i in range(40)]
ATOL = 1e-4


@pytest.fixture(scope="module", params=seq2seq.CASES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seq2seq.write(
        tmp_path_factory.mktemp(request.param) / request.param, seq2seq.CASES[request.param]
    )


def test_encoder_and_logits_equal_transformers(case: Path) -> None:
    encoded, logits = seq2seq.their_pass(seq2seq.their_model(case), READ, IDS)
    assert logits.std() > 0.1
    for overrides in ({}, {"all": "reference"}):
        ours = seq2seq.our_pass(seq2seq.load(case, overrides=overrides), READ, IDS)
        torch.testing.assert_close(ours[0], encoded, rtol=0, atol=ATOL)
        torch.testing.assert_close(ours[1], logits, rtol=0, atol=ATOL)


def test_chunks_of_the_decoders_prompt_keep_the_bits(case: Path) -> None:
    decoder = seq2seq.load(case)
    whole = seq2seq.our_pass(decoder, READ, IDS)[1]
    for chunk in (1, 7, 16):
        assert torch.equal(seq2seq.our_pass(decoder, READ, IDS, chunk=chunk)[1], whole)


def mutations(spec: DecoderSpec) -> Iterator[tuple[str, DecoderSpec]]:
    """The description with one field changed: of either half, of its layers, of their mixers and parts."""
    assert spec.encoder is not None
    for name in set(changed(spec)) - {"encoder"}:
        yield name, replace(spec, **{name: plain_value(spec, name)})
    for name in changed(spec.encoder):
        encoder = replace(spec.encoder, **{name: plain_value(spec.encoder, name)})
        yield f"encoder.{name}", replace(spec, encoder=encoder)
    for name, layer in layer_mutations(spec.layers[0]):
        yield f"layer.{name}", replace(spec, layers=(layer,) * len(spec.layers))
    for name, layer in layer_mutations(spec.encoder.layers[0]):
        encoder = replace(spec.encoder, layers=(layer,) * len(spec.encoder.layers))
        yield f"encoder.layer.{name}", replace(spec, encoder=encoder)


def layer_mutations(layer: LayerSpec) -> Iterator[tuple[str, LayerSpec]]:
    mixer = layer.mixer
    assert isinstance(mixer, Attention) and layer.feed_forward is not None
    for name in {"norm_eps", "norm"} & set(changed(layer)):
        yield name, replace(layer, **{name: plain_value(layer, name)})
    for name in set(changed(mixer)) - {
        "rope",
        "bidirectional",
        "qkv_bias",
        "out_bias",
        "distances",
    }:
        yield (
            f"mixer.{name}",
            replace(layer, mixer=replace(mixer, **{name: plain_value(mixer, name)})),
        )
    distances = mixer.distances
    if distances is not None:
        for name, value in (("farthest", 30), ("both_ways", not distances.both_ways)):
            other = replace(distances, **{name: value})
            yield f"distances.{name}", replace(layer, mixer=replace(mixer, distances=other))
    if mixer.bidirectional:
        yield "causal", replace(layer, mixer=replace(mixer, bidirectional=False))
    if layer.cross is not None:
        cross = replace(layer.cross, scale=0.3 * layer.cross.query_scale)
        yield "cross.scale", replace(layer, cross=cross)
    act = "relu" if layer.feed_forward.activation != "relu" else "gelu"
    yield "act", replace(layer, feed_forward=replace(layer.feed_forward, activation=act))


UNSEEN = {"norm", "layer.norm", "encoder.norm", "encoder.layer.norm", "head_bias", "tie_head"}
UNSEEN |= {"embedding_norm", "learned_positions", "encoder.embedding_norm"}
UNSEEN |= {"encoder.learned_positions", "encoder.max_len", "norm_eps", "encoder.norm_eps"}
"""What changes which tensors there are, which the weight map refuses, and the eps of norms at the ends."""


def test_a_field_that_is_wrong_shows(case: Path) -> None:
    spec = describe(str(case)).spec
    right = seq2seq.our_pass(seq2seq.load(case), READ, IDS)[1]
    seen = 0
    for name, wrong in mutations(spec):
        if name in UNSEEN or (name.endswith("norm_eps") and "t5" not in case.name):
            continue
        logits = seq2seq.our_pass(seq2seq.load(case, spec=wrong), READ, IDS)[1]
        assert (logits - right).abs().max() > 100 * ATOL, name
        seen += 1
    assert seen >= 4


def test_the_weight_map_is_total(case: Path) -> None:
    from safetensors import safe_open

    description = describe(str(case))
    names = ARCHITECTURES[description.architecture].names
    with safe_open(case / "model.safetensors", "pt") as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in list(file.keys())}
    assert set(match(names, description.spec, shapes)) == set(expand(names, description.spec))
    with pytest.raises(ModelLoadError, match="does not use"):
        match(names, description.spec, {**shapes, "decoder.other.weight": (1,)})
    gone = next(name for name in shapes if "decoder" in name)
    with pytest.raises(ModelLoadError, match="lacks"):
        match(names, description.spec, {name: it for name, it in shapes.items() if name != gone})


def test_a_head_is_the_embedding_where_the_file_has_none_of_its_own(tmp_path: Path) -> None:
    folder = seq2seq.write(tmp_path, seq2seq.CASES["t5"])
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
    (folder / "config.json").write_text(json.dumps(config))
    spec = describe(str(folder)).spec
    assert spec.tie_head and spec.logit_scale == 1.0
    theirs = seq2seq.their_pass(seq2seq.their_model(folder), READ, IDS)[1]
    ours = seq2seq.our_pass(seq2seq.load(folder), READ, IDS)[1]
    torch.testing.assert_close(ours, theirs, rtol=0, atol=10 * ATOL)  # eight times as large


def test_a_bias_of_logits_may_be_missing(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = seq2seq.write(tmp_path, seq2seq.CASES["bart"])
    right = seq2seq.our_pass(seq2seq.load(folder), READ, IDS)[1]
    tensors = load_file(folder / "model.safetensors")
    bias = tensors.pop("final_logits_bias")
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    without = seq2seq.our_pass(seq2seq.load(folder), READ, IDS)[1]
    torch.testing.assert_close(without + bias, right, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (8, 20), (32, 64), (16, 100)])
@pytest.mark.parametrize("both_ways", [True, False])
def test_buckets_are_those_of_transformers(count: int, farthest: int, both_ways: bool) -> None:
    from transformers.models.t5.modeling_t5 import T5Attention

    distances = torch.arange(-2 * farthest, 2 * farthest + 1)
    theirs = T5Attention._relative_position_bucket(distances, both_ways, count, farthest)
    buckets = Buckets(count, farthest, both_ways)
    assert [buckets.of(one) for one in distances.tolist()] == theirs.tolist()


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    for change, said in (
        ({"decoder_attention_heads": 5}, "decoder_attention_heads"),
        ({"normalize_before": True}, "normalize_before"),
        ({"static_position_embeddings": True}, "static_position_embeddings"),
    ):
        with pytest.raises(ModelLoadError, match=said):
            ARCHITECTURES["BartForConditionalGeneration"].describe(HfConfig(seq2seq.bart(**change)))
    folder = seq2seq.write(tmp_path, seq2seq.CASES["t5"])
    config = json.loads((folder / "config.json").read_text())
    del config["decoder_start_token_id"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match="decoder_start_token_id"):
        describe(str(folder))
