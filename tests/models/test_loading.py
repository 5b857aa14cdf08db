"""Weights come whole from one file, from shards, in another dtype, or at random, and are let go when packed."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quire.models.build import build_decoder
from quire.models.loading.reader import DummySource, checkpoint_source
from quire.models.parameters import parameters
from quire.models.registry import ARCHITECTURES, describe
from quire.models.spec import Attention
from quire.ops.registry import Table
from tests.models import harness
from tests.models.conftest import Built
from tests.models.families import llama

IDS = [3, 9, 27, 81, 50, 53, 62, 89]


def test_shards_equal_one_file(tmp_path: Path) -> None:
    config = llama(attention_bias=True)
    one = harness.write_checkpoint(tmp_path / "one", config)
    many = harness.write_checkpoint(tmp_path / "many", config, max_shard_size="40KB")
    assert len(list(many.glob("*.safetensors"))) >= 3
    results = [
        harness.our_logits(harness.load(describe(str(folder)), max_len=32), IDS, max_len=32)
        for folder in (one, many)
    ]
    assert torch.equal(*results)


def test_weights_take_the_dtype_asked_for_and_norms_stay_float32(
    built: Callable[[str], Built],
) -> None:
    it = built("gemma2")
    with checkpoint_source(
        Path(it.description.path),
        ARCHITECTURES[it.description.architecture].names,
        it.description.spec,
        dtype=torch.bfloat16,
        device=harness.CPU,
        progress=False,
    ) as weights:
        for name, parameter in parameters(it.description.spec).items():
            tensor = weights(name)
            assert tuple(tensor.shape) == parameter.shape
            norm = parameter.group == "norm"
            assert tensor.dtype == (torch.float32 if norm else torch.bfloat16)


def test_each_parameter_is_asked_for_once_in_order(built: Callable[[str], Built]) -> None:
    it = built("gemma2")
    asked: list[str] = []
    weights = DummySource(it.description.spec, dtype=torch.float32, device=harness.CPU)

    def watched(name: str) -> torch.Tensor:
        asked.append(name)
        return weights(name)

    harness.load(it.description, max_len=32, load_format="dummy").load(watched)
    assert sorted(asked) == sorted(parameters(it.description.spec))
    layers = [int(name.split(".")[1]) for name in asked if name.startswith("layers.")]
    assert layers == sorted(layers)


def test_an_original_is_let_go_once_packed(built: Callable[[str], Built]) -> None:
    """The loader itself must keep nothing: a provider that repacks then holds one copy only."""
    it = built("llama")
    with checkpoint_source(
        Path(it.description.path),
        ARCHITECTURES[it.description.architecture].names,
        it.description.spec,
        dtype=torch.float32,
        device=harness.CPU,
        progress=False,
    ) as weights:
        tensor = weights("layers.0.mixer.qkv.weight")
        gone = weakref.ref(tensor)
        del tensor
        gc.collect()
        assert gone() is None


def test_dummy_weights_need_no_file_and_repeat(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(llama()))
    description = describe(str(tmp_path), load_format="dummy")
    results = [
        harness.our_logits(
            harness.load(description, max_len=32, load_format="dummy"), IDS, max_len=32
        )
        for _ in range(2)
    ]
    assert torch.equal(*results)
    assert results[0].isfinite().all()
    assert results[0].std() > 0


def test_progress_is_shown_when_asked(
    built: Callable[[str], Built], capsys: pytest.CaptureFixture[str]
) -> None:
    for progress in (True, False):
        build_decoder(
            built("llama").description,
            Table(),
            dtype=torch.float32,
            device=harness.CPU,
            load_format="auto",
            progress=progress,
            max_model_len=32,
        )
        assert ("Loading weights" in capsys.readouterr().err) == progress


def test_windows_longer_than_the_model_are_dropped_everywhere(
    built: Callable[[str], Built],
) -> None:
    decoder = harness.load(built("mistral").description, max_len=40)
    specs = [binding.spec for binding in decoder.bindings]
    assert all(isinstance(spec, Attention) and spec.window is None for spec in specs)


@pytest.mark.parametrize("transposed", [False, True])
def test_experts_in_two_tensors_a_layer_are_the_same(
    transposed: bool, tmp_path: Path, built: Callable[[str], Built]
) -> None:
    """As Transformers has them in memory, [out, in], and as the files of Qwen3-VL have them, [in, out]."""
    it = built("qwen3_moe")
    tensors = load_file(Path(it.description.path) / "model.safetensors")
    count = it.case.config["num_experts"]
    found = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
    for block in {
        name.partition(".experts.")[0] + ".experts" for name in set(tensors) - set(found)
    }:
        parts = {
            name: torch.stack([tensors[f"{block}.{at}.{name}_proj.weight"] for at in range(count)])
            for name in ("gate", "up", "down")
        }
        stacked = {
            f"{block}.gate_up_proj": torch.cat((parts["gate"], parts["up"]), dim=1),
            f"{block}.down_proj": parts["down"],
        }
        for name, tensor in stacked.items():
            found[name] = (tensor.transpose(1, 2) if transposed else tensor).contiguous()
    shutil.copy(Path(it.description.path) / "config.json", tmp_path)
    save_file(found, tmp_path / "model.safetensors")
    mine = harness.load(describe(str(tmp_path)), max_len=64)
    theirs = harness.load(it.description, max_len=64)
    ids = it.ids[:20]
    assert torch.equal(
        harness.our_logits(mine, ids, max_len=64), harness.our_logits(theirs, ids, max_len=64)
    )
