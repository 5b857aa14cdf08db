"""`quire verify`: agrees on whole checkpoints, names the layer that was damaged, says what it cannot compare."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from quire.cli.main import main
from tests.models import harness
from tests.models.families_more import MORE_CASES
from tests.models.families_states import STATE_CASES
from tests.models.foreign import followed_here, write

MISTRAL = MORE_CASES["mistral4_flat"].config


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write("llama", folder)
    return folder


def _damaged(source: Path, folder: Path, name: str) -> Path:
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    weights[name] = torch.roll(weights[name], 1, dims=0)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_a_checkpoint_agrees(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(llama)]) == 0
    text = capsys.readouterr().out
    assert "model.layers.0" in text and "model.layers.1" in text and "logits" in text
    assert "greedy tokens: 8 of 8 the same" in text
    assert "the same within 0.001" in text


@pytest.mark.parametrize(
    ("weight", "place"),
    [
        ("model.layers.1.mlp.down_proj.weight", "model.layers.1"),
        ("model.layers.0.self_attn.k_proj.weight", "model.layers.0"),
        ("lm_head.weight", "logits"),
    ],
)
def test_a_damaged_layer_is_found_by_name(
    weight: str, place: str, llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = _damaged(llama, tmp_path / "bad", weight)
    assert main(["verify", str(bad), "--reference", str(llama)]) == 1
    assert f"DIFFERENT: first in {place}," in capsys.readouterr().out


def test_fewer_bits_are_told_and_close(llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(llama), "--quantization", "int8", "--prompt-ids", "[5, 6, 7]"]) == 0
    text = capsys.readouterr().out
    assert "int8" in text and "prompt     3 tokens" in text
    assert main(["verify", str(llama), "-q", "int8", "--tolerance", "1e-5"]) == 1


def test_transformers_code_is_compared_by_its_logits(
    llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with followed_here():
        assert main(["verify", str(llama), "--model-impl", "transformers"]) == 0
    assert "Transformers' code" in capsys.readouterr().out


def test_a_class_that_transformers_does_not_find_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {key: it for key, it in MISTRAL.items() if key not in ("architectures", "model_type")}
    torch.manual_seed(3)
    config = transformers.Mistral4Config(**values)
    transformers.Mistral4ForCausalLM(config).float().save_pretrained(tmp_path)
    assert main(["verify", str(tmp_path), "--prompt-ids", "[5, 6, 7]"]) == 0
    assert "the same within 0.001" in capsys.readouterr().out


def test_a_layer_that_is_two_of_ours_and_halves_the_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = harness.write_checkpoint(tmp_path / "good", STATE_CASES["rwkv"].config)
    assert main(["verify", str(good), "--prompt-ids", "[5, 6, 7]"]) == 0
    text = capsys.readouterr().out
    assert "rwkv.blocks.5" in text and "the same within 0.001" in text
    bad = _damaged(good, tmp_path / "bad", "rwkv.blocks.3.feed_forward.key.weight")
    assert main(["verify", str(bad), "--reference", str(good)]) == 1
    assert "DIFFERENT: first in rwkv.blocks.3," in capsys.readouterr().out


def test_without_transformers_it_says_what_to_install(
    llama: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert main(["verify", str(llama)]) == 2
    assert "pip install 'quire[transformers]'" in capsys.readouterr().err


def test_what_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["NobodyForCausalLM"]}))
    assert main(["verify", str(tmp_path)]) == 2
    assert "NobodyForCausalLM" in capsys.readouterr().err
