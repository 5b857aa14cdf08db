"""Models run from Transformers' code with our operations: equal to Transformers, and row by row to themselves."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from quire.models.foreign import fuse
from quire.models.foreign.rooms import layout_of
from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError
from tests.models.foreign import (
    ALL,
    DESCRIBED,
    UNDESCRIBED,
    engine,
    expected,
    followed_here,
    generated,
    prompts,
    write,
)

Made = Callable[[str], tuple[Path, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A checkpoint by name, and Transformers' model of it."""
    known: dict[str, tuple[Path, Any]] = {}

    def get(name: str) -> tuple[Path, Any]:
        if name not in known:
            folder = tmp_path_factory.mktemp(name)
            known[name] = folder, write(name, folder)
        return known[name]

    return get


@pytest.mark.parametrize("name", ALL)
def test_tokens_and_logprobs_are_those_of_transformers(name: str, made: Made) -> None:
    folder, model = made(name)
    impl = "auto" if name in UNDESCRIBED else "transformers"
    llm = engine(folder, model_impl=impl, max_num_batched_tokens=16)  # prompts come in chunks
    ids = prompts(5, 40, 23)
    for prompt, (tokens, logprobs) in zip(ids, generated(llm, ids), strict=True):
        best, values = expected(model, prompt, tokens)
        assert tokens == best
        assert logprobs == pytest.approx(values, abs=1e-4)


@pytest.mark.parametrize("name", ["granite_swa", "gemma2", "biogpt", "nanochat"])
def test_a_request_has_the_bits_of_running_alone(name: str, made: Made) -> None:
    folder, _ = made(name)
    ids = prompts(33, 7, 40, 18)
    whole = engine(folder, max_num_seqs=1, enable_prefix_caching=False)
    alone = [generated(whole, [one])[0] for one in ids]
    mixed = engine(folder, max_num_batched_tokens=16, enable_prefix_caching=True)
    assert generated(mixed, ids) == alone
    assert generated(mixed, ids) == alone  # from the prefix cache


@pytest.mark.parametrize("name", ["qwen3", "llama", "gemma2"])
def test_joined_sums_and_heads_have_the_bits_of_single_steps(
    name: str, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = made(name)
    ids = prompts(33, 7, 18)
    joined = generated(engine(folder, model_impl="transformers", dtype="bfloat16"), ids)
    with followed_here():
        program = describe(str(folder), model_impl="transformers").spec.program
    assert program is not None
    ops = {step.op for step in layout_of(program).body}
    assert {"qk_rope", "add_rms_norm"} <= ops and "rope" not in ops
    monkeypatch.setattr(fuse, "with_turned_heads", lambda it, readers: it)
    monkeypatch.setattr(fuse, "_with_sums", lambda it: it)
    layout_of.cache_clear()
    assert generated(engine(folder, model_impl="transformers", dtype="bfloat16"), ids) == joined
    layout_of.cache_clear()


def test_bfloat16_is_close(made: Made) -> None:
    folder, model = made("qwen3")
    llm = engine(folder, dtype="bfloat16")
    (prompt,) = prompts(20)
    tokens, logprobs = generated(llm, [prompt])[0]
    assert logprobs == pytest.approx(expected(model, prompt, tokens)[1], abs=0.1)


def test_weights_can_have_fewer_bits(made: Made) -> None:
    folder, _ = made("llama")
    ids = prompts(9, 30)
    ours = generated(engine(folder, model_impl="quire", quantization="int8"), ids)
    theirs = generated(engine(folder, quantization="int8"), ids)
    assert [tokens for tokens, _ in theirs] == [tokens for tokens, _ in ours]
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, abs=1e-4)


def test_the_start_table_says_what_is_left_to_torch(made: Made) -> None:
    table = {name: (value, why) for name, value, why in _table(made("llama")[0])}
    assert table["model_impl"][0] == "transformers"
    assert "independent" in table["model_impl"][1]
    table = {name: (value, why) for name, value, why in _table(made("diffllama")[0])}
    assert "left to torch" in table["model_impl"][1] or "independent" in table["model_impl"][1]


def _table(folder: Path) -> list[tuple[str, str, str]]:
    llm = engine(folder)
    return llm.llm_engine.client._core.resolved.table  # type: ignore[attr-defined, no-any-return]


def test_the_process_that_looks_gives_the_same_description(made: Made) -> None:
    folder, _ = made("qwen3")
    with followed_here():
        here = describe(str(folder), model_impl="transformers")
    there = describe(str(folder), model_impl="transformers")
    assert here.spec.program is not None and there.spec.program is not None
    for field in here.spec.program.__struct_fields__:
        assert getattr(here.spec.program, field) == getattr(there.spec.program, field), field
    assert here.spec.program.left == {}


REFUSED = {
    "RwkvForCausalLM": ({"model_type": "rwkv"}, "recurrent state"),
    "MixtralForCausalLM": ({"model_type": "mixtral", "num_local_experts": 8}, "experts"),
    "PegasusForConditionalGeneration": ({"is_encoder_decoder": True}, "not supported"),
    "BigBirdForCausalLM": ({"model_type": "big_bird"}, "attention interface"),
    "NobodyForCausalLM": ({"model_type": "nobody"}, "not supported"),
    "OwnForCausalLM": ({"auto_map": {"AutoModelForCausalLM": "own.Own"}}, "--trust-remote-code"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_at_once(name: str, tmp_path: Path) -> None:
    values, words = REFUSED[name]
    impl = "transformers" if name in ("MixtralForCausalLM", "RwkvForCausalLM") else "auto"
    (tmp_path / "config.json").write_text(json.dumps({"architectures": [name], **values}))
    started = time.process_time()
    with pytest.raises(ModelLoadError, match=words) as caught:
        describe(str(tmp_path), model_impl=impl)
    assert time.process_time() - started < 5.0
    assert name in str(caught.value)


def test_ours_only_is_ours_only(made: Made) -> None:
    for name in UNDESCRIBED:
        folder, _ = made(name)
        with pytest.raises(ModelLoadError, match=UNDESCRIBED[name].model):
            describe(str(folder), model_impl="vllm")


_OWN = """
import torch
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

class OwnConfig(LlamaConfig):
    model_type = "own"

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def forward(self, input_ids=None, position_ids=None, **kwargs):
        out = super().forward(input_ids=input_ids, position_ids=position_ids, **kwargs)
        out.logits = CHANGE
        return out
"""


def _with_own_code(source: Path, folder: Path, change: str) -> Path:
    shutil.copytree(source, folder)
    values = json.loads((folder / "config.json").read_text())
    values |= {
        "architectures": ["OwnForCausalLM"],
        "model_type": "own",
        "auto_map": {
            "AutoConfig": "own.OwnConfig",
            "AutoModelForCausalLM": "own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(values))
    (folder / "own.py").write_text(_OWN.replace("CHANGE", change))
    return folder


def test_code_of_the_checkpoint_runs_when_trusted(made: Made, tmp_path: Path) -> None:
    source, model = made("llama")
    folder = _with_own_code(source, tmp_path / "own", "-out.logits")
    with followed_here(), pytest.raises(ModelLoadError, match="--trust-remote-code"):
        describe(str(folder))
    (prompt,) = prompts(12)
    llm = engine(folder, model_impl="auto", trust_remote_code=True)
    tokens, logprobs = generated(llm, [prompt], 4)[0]
    with torch.no_grad():
        rows = (-model(torch.tensor([prompt + tokens])).logits[0]).log_softmax(-1)[11:-1]
    assert tokens == rows.argmax(-1).tolist()
    assert logprobs == pytest.approx(rows.max(-1).values.tolist(), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("torch.roll(out.logits, 1, dims=1)", "aten.roll"),
        ("out.logits.cumsum(1)", "goes along the tokens"),
        ("out.logits @ out.logits.transpose(1, 2) @ out.logits", "tokens by tokens"),
        ("out.logits if out.logits.sum() > 0 else -out.logits", "DataDependent"),
        ("torch.sort(out.logits, dim=-1).values", ""),
    ],
)
def test_code_that_mixes_tokens_is_refused(
    change: str, words: str, made: Made, tmp_path: Path
) -> None:
    folder = _with_own_code(made("llama")[0], tmp_path / "own", change)
    with followed_here():
        if not words:
            assert describe(str(folder), trust_remote_code=True).spec.program is not None
            return
        with pytest.raises(ModelLoadError, match=words):
            describe(str(folder), trust_remote_code=True)


def test_described_models_run_from_their_description(made: Made) -> None:
    for name in DESCRIBED:
        assert describe(str(made(name)[0])).spec.program is None
