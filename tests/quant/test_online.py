"""`--quantization`: which weights get which format, what it says, and a model that still answers."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from quire import LLM, EngineArgs, SamplingParams
from quire.config.options import options
from quire.config.schema import ModelConfig, Settings
from quire.engine.resolve import ResolvedSettings, describe_model, resolve
from quire.hardware.cpu import read_machine
from quire.models import footprint
from quire.ops.cpu.library import library
from quire.protocol.errors import SettingsError
from quire.quant.formats import PLAIN
from quire.quant.schemes.checkpoint import METHODS
from quire.quant.schemes.online import CHECKPOINT_METHODS, SCHEMES, UNQUANTIZED, online_scheme

DEMO = "quire/models/demo"


def resolved(name: str | None) -> ResolvedSettings:
    settings = Settings(model=ModelConfig(model=DEMO, quantization=name))
    return resolve(settings, describe_model(settings), read_machine())


def test_the_setting_offers_every_scheme() -> None:
    assert set(options(server=False)["quantization"].choices or ()) == {*SCHEMES, *METHODS}
    assert get_type_hints(ModelConfig)["quantization"] == str | None
    assert EngineArgs(DEMO, quantization=None).quantization is None
    with pytest.raises(SettingsError, match=r"quantization is 'aqlm'; it must be one of: int8, "):
        EngineArgs(DEMO, quantization="aqlm")


def test_names_that_are_not_schemes_are_refused_with_those_that_are() -> None:
    assert not CHECKPOINT_METHODS & set(SCHEMES)
    with pytest.raises(ValueError, match=r"'aqlm' is not served by this version; .* int8, .*int4"):
        online_scheme("aqlm")
    with pytest.raises(ValueError, match="'int3' is unknown"):
        online_scheme("int3")
    with pytest.raises(
        SettingsError, match="'gptq' is asked for, but the checkpoint holds plain floats"
    ):
        resolved("gptq")


def test_embeddings_and_norms_keep_their_numbers() -> None:
    assert online_scheme(None) is UNQUANTIZED
    for scheme in SCHEMES.values():
        assert scheme.format_of("attention") == scheme.format_of("feed_forward") != PLAIN
        assert scheme.format_of("embedding") == scheme.format_of("norm") == PLAIN


def test_every_scheme_has_a_fingerprint_of_its_own_and_stands_in_the_ledger() -> None:
    found = {name: resolved(name) for name in (None, *SCHEMES)}
    assert len({one.fingerprint for one in found.values()}) == len(found)
    plain = {line.name: line for line in found[None].ledger.lines}
    for name, one in found.items():
        lines = {line.name: line for line in one.ledger.lines}
        assert lines["weights: embedding"] == plain["weights: embedding"]
        if name is not None:
            share = 0.6 if name.startswith(("int8", "fp8")) else 0.4
            wanted = plain["weights: attention"].num_bytes * share
            assert lines["weights: attention"].num_bytes < wanted
            assert SCHEMES[name].layers.name in lines["weights: attention"].note


def test_weights_by_hand() -> None:
    settings = Settings(model=ModelConfig(model=DEMO))
    spec = describe_model(settings).spec
    found = footprint.weight_bytes(spec, 2, SCHEMES["int4_g64"])
    groups = 256 // 64 * 128 + 256 * 16  # of 32 columns with 256 inputs: scales, codes
    wide = 704 // 64 * 128 + 704 * 16
    assert found["attention"] == 5 * (512 // 32 * groups + 256 // 32 * groups)
    assert found["feed_forward"] == 5 * (1408 // 32 * groups + 256 // 32 * wide)
    assert found["head"] == 3072 // 32 * (128 + 256 * 32)  # a copy of the tied table in int8
    assert footprint.largest_layer_bytes(spec, 2, SCHEMES["int4_g64"]) == max(
        3 * 1408 * 256, 3072 * 256
    )


@pytest.mark.skipif(library() is None, reason="no native library here")
@pytest.mark.parametrize("name", ["int8", "int4", "fp8", "fp8_per_block"])
def test_a_quantized_model_answers(name: str) -> None:
    llm = LLM(model=DEMO, quantization=name, use_tqdm_on_load=False, max_model_len=256)
    outputs = llm.generate(
        ["The capital of France is"], SamplingParams(max_tokens=8, temperature=0), use_tqdm=False
    )
    assert outputs[0].outputs[0].text == " Paris."
