"""Published config.json files are read as Transformers reads them; their descriptions are kept on file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from quire.models.hf_config import HfConfig
from quire.models.parameters import weight_counts
from quire.models.registry import ARCHITECTURES, describe
from quire.models.spec import DecoderSpec, derived_max_len, to_json
from tests.models import harness
from tests.models.families import CASES
from tests.models.published import PUBLISHED, SWITCH, config, shrunk

SPECS = Path(__file__).parent / "specs"


def described(values: dict[str, Any]) -> DecoderSpec:
    return ARCHITECTURES[values["architectures"][0]].describe(HfConfig(values))


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
    count = Counter(config(name)["architectures"][0] for name in PUBLISHED)
    assert set(count) == set(ARCHITECTURES)
    assert min(count.values()) >= 3, count
    assert {path.stem for path in SPECS.glob("*.json")} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_description_is_the_stored_one(name: str) -> None:
    assert rendered(name) == (SPECS / f"{name}.json").read_text()


@pytest.mark.parametrize("name", PUBLISHED)
def test_no_key_is_left_unread(name: str) -> None:
    values = config(name)
    hf = HfConfig(values)
    ARCHITECTURES[values["architectures"][0]].describe(hf)
    assert hf.unread() == []


@pytest.mark.parametrize("name", PUBLISHED)
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    folder = harness.write_checkpoint(tmp_path, shrunk(name))
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(0, 97, (150,), generator=generator).tolist()
    decoder = harness.load(describe(str(folder)), max_len=160)
    ours = harness.our_logits(decoder, ids, max_len=160)
    torch.testing.assert_close(ours, harness.their_logits(folder, ids), rtol=0, atol=1e-4)


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


@pytest.mark.parametrize("name", [*PUBLISHED, *CASES])
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
    assert totals["opt-125m"] == 125_239_296 - 2 * 768  # two rows of positions are for padding
    assert totals["pythia-160m"] == 162_322_944
    assert totals["olmo-2-0425-1b"] == 1_484_916_736
    assert totals["olmo-2-1124-7b"] == 7_298_617_344
    assert totals["command-r-v01"] == 34_980_831_232
    assert totals["granite-3.1-2b"] == 2_533_531_648


if __name__ == "__main__":
    write_specs()
