"""Readers, methods of quantized checkpoints and tokenizers that a plug-in adds give what built-in ones give.

The plug-in's checkpoint holds the demo model's numbers in a file, a form and a tokenizer of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from quire import LLM, SamplingParams
from quire.config import plugins
from quire.config.args import EngineArgs
from quire.config.demo import FOLDER
from quire.frontend.outside_tokenizer import open_tokenizer
from quire.models.loading.hub import with_local_folders
from quire.models.loading.loaders import BaseModelLoader, register_model_loader
from quire.models.loading.tokenizer_classes import TokenizerRegistry
from quire.protocol.errors import InvalidRequestError, ModelLoadError, SettingsError
from quire.quant.schemes.outside import register_quantization_config
from tests.distributions import install
from tests.e2e.served import ROOT, served

CODE = """
import numpy as np
import torch

from quire.models.loading.hub import with_local_folders
from quire.models.loading.loaders import BaseModelLoader, register_model_loader
from quire.models.loading.tokenizer_classes import TokenizerRegistry
from quire.quant.formats import PLAIN, Format
from quire.quant.schemes.outside import QuantizationConfig, register_quantization_config
from quire.quant.stored import StoredTensor


def general():
    register_model_loader("npz")(Archive)
    register_quantization_config("rows_of_bytes")(Rows)
    TokenizerRegistry.register("mine", "registries_plugin", "Words")


class Archive(BaseModelLoader):
    def load_weights(self, model, model_config):
        file = self.load_config.model_loader_extra_config.get("file", "weights.npz")
        with np.load(f"{model_config.model}/{file}") as found:
            for name in found.files:
                tensor = torch.from_numpy(found[name])
                model.load_weights([(name, tensor)])


class Rows(QuantizationConfig):
    def __init__(self, packs):
        self.packs = packs

    @classmethod
    def from_config(cls, config):
        if config["kept"] not in ("floats", "bytes"):
            raise ValueError(f"kept is {config['kept']!r}")
        return cls(config["kept"] == "bytes")

    def weights(self, infos, read):
        found = {}
        for name, info in infos.items():
            if name.endswith(".codes"):
                stem = name.removesuffix(".codes")
                found[stem + ".weight"] = StoredTensor(
                    info.shape,
                    {"codes": name, "scales": stem + ".steps"},
                    decoder="bytes" if self.packs else "rows_of_bytes",
                    format=Format("int8", 0) if self.packs else PLAIN,
                )
        return found

    @staticmethod
    def decode(members, stored, dtype):
        return members["codes"].to(torch.float32) * members["scales"]


class Words:
    # The library's tokenizer behind the three methods, and nothing else.
    bos_token = None
    eos_token = "<|im_end|>"

    def __init__(self, folder):
        import tokenizers

        self._it = tokenizers.Tokenizer.from_file(folder + "/words.mine")
        self.all_special_ids = [
            i for i, one in self._it.get_added_tokens_decoder().items() if one.special
        ]

    def encode(self, text, add_special_tokens=True):
        return self._it.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, ids, skip_special_tokens=False):
        return self._it.decode(list(ids), skip_special_tokens=skip_special_tokens)

    def get_vocab(self):
        return self._it.get_vocab()
"""
GREEDY = SamplingParams(temperature=0, max_tokens=12, logprobs=2, ignore_eos=True)
PROMPTS = ["The river is", "Ein Käse – naïve 🙂", [5, 900, 31]]
QUICK: dict[str, Any] = {"max_model_len": 128, "max_num_seqs": 4, "seed": 1}
POINTS = "[vllm.general_plugins]\nx = registries_plugin:general\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the plug-in as a distribution."""
    return install(tmp_path_factory.mktemp("site"), "registries_plugin", CODE, POINTS)


@pytest.fixture
def here(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plug-in is installed in this process, and nothing else is registered."""
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.setenv("QUIRE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(plugins, "_loaded_general", False)
    monkeypatch.setattr(plugins, "_added", {})
    plugins._installed.cache_clear()
    yield
    plugins._installed.cache_clear()


def numbers() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The demo's weights with layers in bytes and steps of rows, and the floats that these stand for."""
    quantized, floats = {}, {}
    for name, tensor in load_file(FOLDER / "model.safetensors").items():
        if "_proj." not in name:
            quantized[name] = floats[name] = tensor.float()
            continue
        steps = tensor.float().abs().amax(1, keepdim=True) / 127
        codes = (tensor.float() / steps).round().to(torch.int8)
        stem = name.removesuffix(".weight")
        quantized |= {f"{stem}.codes": codes, f"{stem}.steps": steps}
        floats[name] = codes.float() * steps
    return quantized, floats


def beside(folder: Path, kept: str | None = None, **config: Any) -> Path:
    """The demo's files but its weights; with a method where it is said how weights are kept."""
    folder.mkdir()
    for one in FOLDER.iterdir():
        if one.name not in ("model.safetensors", "config.json"):
            (folder / one.name).symlink_to(one)
    known = json.loads((FOLDER / "config.json").read_text())
    if kept is not None:
        config["quantization_config"] = {"quant_method": "rows_of_bytes", "kept": kept}
    (folder / "config.json").write_text(json.dumps(known | config))
    return folder


def mine(folder: Path, kept: str = "floats") -> Path:
    """The checkpoint that only the plug-in reads."""
    beside(folder, kept)
    quantized, _ = numbers()
    np.savez(folder / "weights.npz", **{name: one.numpy() for name, one in quantized.items()})
    (folder / "tokenizer.json").rename(folder / "words.mine")
    return folder


def plain(folder: Path) -> Path:
    """The same numbers as floats in our own form."""
    save_file(numbers()[1], beside(folder) / "model.safetensors")
    return folder


def answers(model: Path, **settings: Any) -> list[Any]:
    with LLM(model=str(model), dtype="float32", **QUICK, **settings) as llm:
        return said(llm)


def said(llm: LLM) -> list[Any]:
    outputs = llm.generate(PROMPTS, GREEDY, use_tqdm=False)
    return [
        (one.outputs[0].text, one.outputs[0].token_ids, [
            {token: entry.logprob for token, entry in place.items()}
            for place in one.outputs[0].logprobs or []
        ])
        for one in outputs
    ]  # fmt: skip


def test_a_plugins_checkpoint_gives_the_answers_of_the_same_numbers(
    here: None, tmp_path: Path
) -> None:
    found = answers(mine(tmp_path / "mine"), load_format="npz", tokenizer_mode="mine")
    assert found == answers(plain(tmp_path / "plain"))


def test_codes_that_are_kept_as_bytes_are_those_of_a_method_of_our_own(
    here: None, tmp_path: Path
) -> None:
    ours = beside(tmp_path / "ours")
    quantized, _ = numbers()
    names = {"codes": "weight", "steps": "weight_scale"}
    renamed = {
        f"{stem}.{names.get(end, end)}": tensor
        for (stem, _, end), tensor in (
            (name.rpartition("."), one) for name, one in quantized.items()
        )
    }
    save_file(renamed, ours / "model.safetensors")
    config = json.loads((ours / "config.json").read_text())
    group = {"targets": ["Linear"], "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}}  # fmt: skip  # noqa: E501
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "int-quantized", "ignore": ["lm_head"],
        "config_groups": {"group_0": group},
    }  # fmt: skip
    (ours / "config.json").write_text(json.dumps(config))
    folder = mine(tmp_path / "mine", kept="bytes")
    with LLM(
        model=str(folder), dtype="float32", load_format="npz", tokenizer_mode="mine", **QUICK
    ) as llm:
        found = said(llm)
    assert found == answers(ours)


def test_a_server_reads_it_in_all_its_processes(
    here: None, installed: Path, tmp_path: Path
) -> None:
    (model := mine(tmp_path / "mine")).joinpath("weights.npz").rename(model / "other.npz")
    environment = {
        "PYTHONPATH": os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")]),
        "QUIRE_CACHE_DIR": str(tmp_path / "cache"),
    }
    words = ["--load-format", "npz", "--tokenizer-mode", "mine", "--dtype", "float32"]
    words += ["--model-loader-extra-config", '{"file": "other.npz"}', "--max-model-len", "128"]
    body = {"temperature": 0, "max_tokens": 12, "ignore_eos": True, "return_token_ids": True}
    with served(tmp_path, str(model), *words, **environment) as server:
        texts = [server.post({"prompt": prompt, **body}).json()["choices"][0] for prompt in PROMPTS]
        chat = {"messages": [{"role": "user", "content": "Hello <|im_end|> there"}], **body}
        reply = server.post(chat, "/v1/chat/completions").json()
        refused = server.post({"prompt": "Hi", "structured_outputs": {"regex": "a+"}})
    plain_model = plain(tmp_path / "plain")
    want = answers(plain_model)
    assert [(one["text"], one["token_ids"]) for one in texts] == [one[:2] for one in want]
    with LLM(model=str(plain_model), dtype="float32", **QUICK) as llm:
        whole = llm.chat(chat["messages"], GREEDY, use_tqdm=False)[0]
    assert reply["prompt_token_ids"] == whole.prompt_token_ids
    assert reply["choices"][0]["message"]["content"] == whole.outputs[0].text
    assert refused.status_code == 400 and "tokenizer.json" in refused.json()["error"]["message"]


def test_what_is_made_is_kept_until_something_changes(here: None, tmp_path: Path) -> None:
    calls = []

    @register_model_loader("counted")
    def read(folder: Path) -> Any:
        calls.append(folder)
        room = torch.empty(3072 * 256)  # one buffer for all, as readers of streams have it
        for name, tensor in numbers()[1].items():
            room[: tensor.numel()] = tensor.flatten()
            yield name, room[: tensor.numel()].view(tensor.shape)

    def made(**load: Any) -> dict[str, torch.Tensor]:
        settings = EngineArgs(str(folder), load_format="counted", **load).to_settings()
        return load_file(Path(with_local_folders(settings).model.model) / "model-00000.safetensors")

    folder, want = beside(tmp_path / "empty"), numbers()[1]
    for _ in range(2):
        found = made()
        assert found.keys() == want.keys()
        assert all(torch.equal(found[name], want[name]) for name in want)
    assert calls == [folder]
    made(model_loader_extra_config={"a": 1})
    (folder / "weights.bin").write_bytes(b"x")
    made()
    assert len(calls) == 3


def test_what_goes_wrong_is_told(here: None, tmp_path: Path) -> None:
    folder = mine(tmp_path / "mine", kept="nothing")
    with pytest.raises(ModelLoadError, match=r"method 'rows_of_bytes': kept is 'nothing'"):
        LLM(model=str(folder), load_format="npz", tokenizer_mode="mine")
    (folder / "weights.npz").unlink()
    with pytest.raises(ModelLoadError, match=r"load_format 'npz': FileNotFoundError"):
        LLM(model=str(folder), load_format="npz")
    with pytest.raises(SettingsError, match=r"load_format is 'zip'.*sharded_state.*npz"):
        LLM(model=str(folder), load_format="zip")
    with pytest.raises(SettingsError, match=r"tokenizer_mode is 'yours'.*mistral, mine"):
        LLM(model=str(folder), tokenizer_mode="yours")
    with pytest.raises(SettingsError, match=r"load_format 'auto' has no settings"):
        LLM(model=str(FOLDER), model_loader_extra_config={"file": "x"})
    (gguf := tmp_path / "a.gguf").touch()
    with pytest.raises(SettingsError, match=r"a\.gguf is a GGUF file.*'npz'"):
        LLM(model=str(gguf), load_format="npz")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["quant_method"] = "unheard"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelLoadError, match=r"'unheard'.*torchao.*rows_of_bytes"):
        LLM(model=str(folder))

    with pytest.raises(ValueError, match="Quire's own"):
        register_model_loader("safetensors")(lambda folder: [])
    with pytest.raises(TypeError, match="neither a subclass"):
        register_model_loader("odd")(int)
    with pytest.raises(TypeError, match="does not derive"):
        register_quantization_config("odd")(int)
    with pytest.raises(TypeError, match="as a class"):
        TokenizerRegistry.register("odd", 3)
    TokenizerRegistry.register("bare", BaseModelLoader)
    with pytest.raises(SettingsError, match="no encode, decode, get_vocab"):
        open_tokenizer(FOLDER, "bare")


def test_a_tokenizer_of_transformers_is_one(here: None) -> None:
    TokenizerRegistry.register("theirs", "transformers", "PreTrainedTokenizerFast")
    theirs, ours = open_tokenizer(FOLDER, "theirs"), open_tokenizer(FOLDER)
    text = "Ein Käse <|im_end|> – naïve 🙂\n"
    ids = ours.encode(text)
    assert theirs.encode(text) == ids
    for skips in (False, True):
        assert theirs.decode(ids, skips) == ours.decode(ids, skips)
    assert (theirs.eos_token_id, theirs.vocab_size) == (ours.eos_token_id, ours.vocab_size)
    assert [theirs.token_bytes(one) for one in ids if one in ours.all_special_ids] != []
    with pytest.raises(InvalidRequestError, match="lone surrogate"):
        theirs.encode("\ud800")
    with pytest.raises(InvalidRequestError, match=r"tokenizer\.json"):
        theirs.joined(theirs.encoding("a"), theirs.encoding("b"), add_special_tokens=True)


def test_the_names_of_vllm_are_there(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from vllm import LLM, SamplingParams\n"
        "from vllm.model_executor.layers.quantization import register_quantization_config\n"
        "from vllm.model_executor.layers.quantization.base_config import QuantizationConfig\n"
        "from vllm.model_executor.model_loader import BaseModelLoader, register_model_loader\n"
        "from vllm.tokenizers import TokenizerRegistry\n"
        "from safetensors.torch import load_file\n"
        f"FOLDER = {str(FOLDER)!r}\n"
        "@register_model_loader('mine')\n"
        "class Mine(BaseModelLoader):\n"
        "    def download_model(self, model_config): pass\n"
        "    def load_weights(self, model, model_config):\n"
        "        model.load_weights(load_file(model_config.model + '/model.safetensors').items())\n"
        "try:\n"
        "    @register_quantization_config('theirs')\n"
        "    class Theirs(QuantizationConfig):\n"
        "        def get_quant_method(self, layer, prefix): return None\n"
        "except TypeError as error:\n"
        "    print(error)\n"
        "def ids(**how):\n"
        "    llm = LLM(model=FOLDER, max_model_len=64, **how)\n"
        "    return llm.generate('The river', SamplingParams(temperature=0, max_tokens=8))[0].outputs[0].token_ids\n"
        "assert ids() == ids(load_format='mine')\n"
        "print('same')\n"
    )
    environment = os.environ | {"QUIRE_CACHE_DIR": str(tmp_path / "cache")}
    words = [sys.executable, "-m", "quire.compat.vllm", str(program)]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "same"
    assert "Theirs does not define decode, from_config, weights" in done.stdout
