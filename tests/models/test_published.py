"""Published config.json files are read as Transformers reads them; their descriptions are kept on file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from quire.models.hf_config import HfConfig
from quire.models.lengths import derived_max_len
from quire.models.parameters import weight_counts
from quire.models.registry import ARCHITECTURES, describe, known_as
from quire.models.spec import DecoderSpec, Mla
from quire.models.spec_json import to_json
from tests.models import harness
from tests.models.families import CASES
from tests.models.plain_zoo import PLAIN_MODELS
from tests.models.published import FEWER, PUBLISHED, SOURCES, SWITCH, UNSOURCED, config, shrunk
from tests.models.stand_ins import STAND_INS
from tests.models.test_parity import DECODERS

SPECS = Path(__file__).parent / "specs"
LOUD = {
    "GPTNeoForCausalLM": 2e-4,
    "Gemma4ForCausalLM": 2e-4,
    "OuroForCausalLM": 2e-4,
    "mistral-small-4-119b-2603": 3e-4,
    "mistral-small-4-119b-2603-text": 3e-4,
}
"""Architectures, and files, in which roundings grow, and how far our logits may be from theirs."""


def described(values: dict[str, Any]) -> DecoderSpec:
    return ARCHITECTURES[known_as(values["architectures"][0])].describe(HfConfig(values))


def rendered(name: str) -> str:
    """The stored form: what the engine would plan with, and the size of each group of weights."""
    spec = described(config(name))
    data = to_json(spec) | {"max_model_len": derived_max_len(spec), "weights": weight_counts(spec)}
    return json.dumps(data, indent=2) + "\n"


def write_specs() -> None:
    """Stores every description anew; read the difference before you keep it."""
    for name in PUBLISHED:
        (SPECS / f"{name}.json").write_text(rendered(name))


def test_every_architecture_has_three_stored_descriptions() -> None:
    count = Counter(known_as(config(name)["architectures"][0]) for name in PUBLISHED)
    assert set(count) <= set(ARCHITECTURES)
    short = {name: count[name] for name in DECODERS if count[name] < 3}
    assert short == FEWER
    assert {path.stem for path in SPECS.glob("*.json")} == set(PUBLISHED)


def test_sources_are_those_of_published_files() -> None:
    assert set(SOURCES) <= set(PUBLISHED)
    named = {name: config(name)["architectures"][0] for name in PUBLISHED}
    assert set(named.values()) - {named[name] for name in SOURCES} == UNSOURCED


@pytest.mark.parametrize("name", PUBLISHED)
def test_description_is_the_stored_one(name: str) -> None:
    assert rendered(name) == (SPECS / f"{name}.json").read_text()


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_key_is_left_unread(name: str) -> None:
    values = config(name)
    hf = HfConfig(values)
    ARCHITECTURES[known_as(values["architectures"][0])].describe(hf)
    assert hf.unread() == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path, shrunk(name))
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 97, (150,), generator=generator).tolist()
    description = describe(str(folder))
    decoder = harness.load(description, max_len=160)
    # With latent attention Transformers' own float32 is up to 1.9e-4 from its float64, and ours 1.2e-4.
    # GPT-Neo does not divide scores: theirs is 0.7e-4 from their float64, and ours 0.6e-4. Nor does Gemma 4:
    # theirs is 1.2e-4 from it, and ours 1.1e-4. Ouro's layers run twice: 1.0e-4 and 1.2e-4. Mistral Small 4
    # multiplies scores by 2.2: 3e-4 and 1e-4.
    mixer = description.spec.layers[0].mixer
    ours = harness.our_logits(decoder, ids, max_len=160)
    quiet = 2e-4 if isinstance(mixer, Mla) else 1e-4
    atol = LOUD.get(name, LOUD.get(description.architecture, quiet))
    torch.testing.assert_close(ours, harness.their_logits(folder, ids), rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["phi-3.5-mini", "phi-4-mini"])
def test_longrope_takes_its_short_factors_below_the_switch(name: str, tmp_path: Path) -> None:
    """The test above runs above the switch, which depends on the length that the model is built for."""
    folder = harness.write_checkpoint(tmp_path, shrunk(name))
    ids = list(range(2, 92))
    theirs = harness.their_logits(folder, ids)
    short = harness.load(describe(str(folder)), max_len=SWITCH)
    ours = harness.our_logits(short, ids, max_len=SWITCH)
    # Transformers' own float32 is 1.6e-4 from its float64 here, and ours 1.1e-4
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-4)
    long = harness.load(describe(str(folder)), max_len=SWITCH + 1)
    ours = harness.our_logits(long, ids, max_len=SWITCH + 1)
    assert (ours - theirs).abs().max() > 0.01


def read_by_transformers() -> list[str]:
    """Names of published files and cases whose architecture Transformers has under that name."""
    named = {name: config(name) for name in PUBLISHED} | {
        name: case.config for name, case in CASES.items()
    }
    return [
        name
        for name, it in named.items()
        if it["architectures"][0] not in {*STAND_INS, *PLAIN_MODELS}
    ]


@pytest.mark.parametrize("name", read_by_transformers())
def test_what_transformers_writes_describes_the_same(name: str, tmp_path: Path) -> None:
    """Transformers saves configs in its newest spelling: rope_parameters, layer_types, dtype."""
    from transformers import AutoConfig

    values = config(name) if name in PUBLISHED else CASES[name].config
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    (old / "config.json").write_text(json.dumps(values))
    AutoConfig.from_pretrained(old).save_pretrained(new)
    saved = json.loads((new / "config.json").read_text())
    (new / "config.json").write_text(json.dumps(saved | {"architectures": values["architectures"]}))
    before = describe(str(old), load_format="dummy")
    after = describe(str(new), load_format="dummy")
    assert after.spec == before.spec
    if "eos_token_id" in values:  # else it has the default of the config class
        assert after.eos_token_ids == before.eos_token_ids
    assert after.checkpoint_dtype == before.checkpoint_dtype


def test_weight_counts_are_those_of_the_real_models() -> None:
    """Figures of the model cards, or counted by Transformers."""
    totals = {name: sum(weight_counts(described(config(name))).values()) for name in PUBLISHED}
    assert totals["llama-2-7b"] == 6_738_415_616
    assert totals["llama-3.2-1b"] == 1_235_814_400
    assert totals["mistral-7b-v0.1"] == 7_241_732_096
    assert totals["qwen2.5-0.5b"] == 494_032_768
    assert totals["qwen3-0.6b"] == 596_049_920
    assert totals["gemma-2-2b"] == 2_614_341_888
    assert totals["gemma-2b"] == 2_506_172_416
    assert totals["gemma-3-270m"] == 268_098_176
    assert totals["gemma-3-1b-it"] == 999_885_952
    assert totals["phi-3-mini-4k"] == 3_821_079_552
    assert totals["phi-4-mini"] == 3_836_021_760
    assert totals["gpt2-124m"] == 124_439_808
    assert totals["gpt2-xl"] == 1_557_611_200
    assert totals["openai-gpt"] == 116_534_784
    assert totals["biogpt"] == 346_763_264 - 2 * 1024  # as of opt
    assert totals["opt-125m"] == 125_239_296 - 2 * 768  # two rows of positions are for padding
    assert totals["pythia-160m"] == 162_322_944
    assert totals["olmo-2-0425-1b"] == 1_484_916_736
    assert totals["olmo-2-1124-7b"] == 7_298_617_344
    assert totals["command-r-v01"] == 34_980_831_232
    assert totals["phi-2"] == 2_779_683_840
    assert totals["stablelm-2-1.6b"] == 1_644_515_328
    assert totals["stablelm-3b-4e1t"] == 2_795_443_200
    assert totals["starcoder2-3b"] == 3_030_371_328
    assert totals["starcoder"] == 15_517_456_384
    assert totals["starcoderbase-1b"] == 1_137_207_296
    assert totals["gpt-j-6b"] == 6_050_882_784
    assert totals["falcon-7b"] == 6_921_720_704
    assert totals["falcon-rw-1b"] == 1_311_625_216
    assert totals["bloom-560m"] == 559_214_592
    assert totals["bloom-176b"] == 176_247_271_424
    assert totals["gpt-neo-125m"] == 125_198_592
    assert totals["olmo-1b-hf"] == 1_176_764_416 + 33 * 2048  # norms without weights are ones here
    assert totals["olmo-7b-hf"] == 6_888_095_744 + 65 * 4096
    assert totals["seed-oss-36b-instruct"] == 36_151_104_512
    assert totals["smollm3-3b"] == 3_075_098_624
    assert totals["mpt-7b"] == 6_649_286_656
    assert totals["ministral-8b-instruct-2410"] == 8_019_808_256
    assert totals["granite-3.1-2b"] == 2_533_531_648
    assert totals["deepseek-v2-lite"] == 15_706_484_224
    assert totals["deepseek-v2.5"] == 235_741_434_880
    assert totals["deepseek-v3"] == 671_026_419_200  # without the layer that drafts
    assert totals["kimi-k2-instruct"] == 1_026_408_232_448
    assert totals["kimi-k2.5-bf16"] == totals["kimi-k2-instruct"]
    assert totals["qwen3-vl-30b-a3b-instruct"] == totals["qwen3-30b-a3b"]
    assert totals["moonlight-16b-a3b"] == 15_960_110_208
    assert totals["gpt-oss-20b-bf16"] == 20_914_757_184
    assert totals["gpt-oss-120b-bf16"] == 116_829_156_672
    assert totals["dbrx-base"] == 131_596_523_520
    assert totals["kimi-linear-48b-a3b-instruct"] == 49_122_681_728
    assert totals["qwen3-next-80b-a3b-instruct"] == 79_674_391_296  # without what drafts
    assert totals["lfm2-1.2b"] == 1_170_340_608
    assert totals["lfm2-350m"] == 354_483_968
    assert (
        totals["lfm2-8b-a1b"] == 8_339_929_856 + 22 * 32
    )  # biases of the choice are no weights there
    assert totals["hunyuan-a13b-instruct"] == 80_393_183_232


if __name__ == "__main__":
    write_specs()
