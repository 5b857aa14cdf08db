"""Code that an installation adds: each kind of plug-in loads, the list of names is kept, faults are told."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quire.config import plugins
from quire.config.demo import FOLDER
from quire.config.schema import ModelConfig, Settings
from quire.metrics.stat_loggers import StatLoggerBase, StatLoggers
from quire.models.registry import ModelRegistry
from quire.protocol.errors import SettingsError
from quire.protocol.outputs import EngineStats
from tests.distributions import install
from tests.e2e.served import served

CODE = """
import json
from pathlib import Path

from fastapi import APIRouter

from quire.metrics.stat_loggers import StatLoggerBase
from quire.models.registry import ModelRegistry
from tests.processors import TargetToken

calls = []


def general():
    calls.append("general")
    ModelRegistry.register_model("MineForCausalLM", "Qwen3ForCausalLM")


def broken():
    raise RuntimeError("out of order")


class Target(TargetToken):
    pass


class Log(StatLoggerBase):
    def __init__(self, vllm_config, engine_index=0):
        self.tokens = 0
        self.model = vllm_config.model_config.served_model_name

    def record(self, scheduler_stats, iteration_stats, mm_cache_stats=None, engine_idx=0):
        self.tokens += iteration_stats.num_generation_tokens
        assert scheduler_stats.num_running_reqs >= 0
        calls.append(("tokens", self.tokens))

    def log_engine_initialized(self):
        calls.append("opened")


class Endpoint:
    name = "hello"
    required_tasks = ("generate",)
    ready = False

    def attach_router(self, app):
        router = APIRouter()

        @router.get("/hello")
        async def hello():
            return {"ready": self.ready, "records": len(calls)}

        app.include_router(router)

    async def init_state(self, engine_client, state, args):
        self.ready = True
"""
POINTS = """
[vllm.general_plugins]
mine = quire_test_plugin:general
[quire.general_plugins]
broken = quire_test_plugin:broken
[vllm.logits_processors]
target = quire_test_plugin:Target
[vllm.stat_logger_plugins]
log = quire_test_plugin:Log
[vllm.endpoint_plugins]
hello = quire_test_plugin:Endpoint
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a distribution that has one plug-in of each kind."""
    return install(tmp_path_factory.mktemp("site"), "quire_test_plugin", CODE, POINTS)


@pytest.fixture
def here(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The distribution is installed in this process."""
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.setattr(plugins, "_loaded_general", False)
    plugins._installed.cache_clear()
    monkeypatch.delitem(sys.modules, "quire_test_plugin", raising=False)
    yield importlib.import_module("quire_test_plugin")
    plugins._installed.cache_clear()


def test_each_kind_is_found(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quire.models.registry._ADDED", {})
    plugins.load_general()
    plugins.load_general()
    assert here.calls == ["general"], "once, and the broken one stops nobody"
    assert "MineForCausalLM" in ModelRegistry.get_supported_archs()
    assert plugins.processor_classes([]) == [here.Target]
    assert plugins.processor_classes(["quire_test_plugin:Target"]) == [here.Target]
    assert [name for name, _ in plugins.load_entry_points(plugins.STAT_LOGGERS)] == ["log"]
    assert plugins.load_entry_points(plugins.ENDPOINTS, only_named=True) == []


def test_an_engine_knows_whether_others_code_runs_in_it(
    here: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert plugins.has_own_code(Settings())
    monkeypatch.setenv("QUIRE_PLUGINS", "target")
    assert plugins.has_own_code(Settings())
    monkeypatch.setenv("QUIRE_PLUGINS", "")
    assert not plugins.has_own_code(Settings())
    assert plugins.has_own_code(Settings(model=ModelConfig(logits_processors=["a:B"])))


def test_names_are_let_in_by_the_list(here: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_PLUGINS", "")
    assert plugins.processor_classes([]) == []
    monkeypatch.setenv("VLLM_PLUGINS", "other, target,hello")
    assert plugins.processor_classes([]) == [here.Target]
    assert plugins.load_entry_points(plugins.STAT_LOGGERS) == []
    assert plugins.load_entry_points(plugins.ENDPOINTS, only_named=True) == [
        ("hello", here.Endpoint)
    ]
    monkeypatch.setenv("QUIRE_PLUGINS", "broken")  # our own name wins
    with pytest.raises(SettingsError, match=r"broken.*out of order"):
        plugins.load_general()


def test_a_server_has_them_all(installed: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    names = {"VLLM_PLUGINS": "mine,target,log,hello", "PYTHONPATH": path}
    model = tmp_path / "model"
    model.mkdir()
    for one in FOLDER.iterdir():
        (model / one.name).symlink_to(one)
    (model / "config.json").unlink()
    config = json.loads((FOLDER / "config.json").read_text())
    known = config["architectures"][0]
    assert known == "Qwen3ForCausalLM", "what the plug-in's name stands for"
    (model / "config.json").write_text(json.dumps(config | {"architectures": ["MineForCausalLM"]}))
    with served(tmp_path, str(model), "--max-model-len", "128", **names) as server:
        import httpx

        answer = server.post({"prompt": "Hi", "max_tokens": 3, "return_token_ids": True,
                              "vllm_xargs": {"target_token": 9}}).json()  # fmt: skip
        assert answer["choices"][0]["token_ids"] == [9, 9, 9]
        hello = httpx.get(f"{server.url}/hello").json()
        assert hello["ready"] and hello["records"] > 1, "the stat logger saw steps in the front"


@pytest.mark.slow
def test_an_endpoint_is_not_there_unless_named(installed: Path, tmp_path: Path) -> None:
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    with served(tmp_path, "--max-model-len", "128", PYTHONPATH=path) as server:
        import httpx

        assert httpx.get(f"{server.url}/hello").status_code == 404


class Log(StatLoggerBase):
    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self.seen: list[Any] = []
        self.lines = 0
        self.fails = False

    def record(self, scheduler_stats, iteration_stats, mm_cache_stats=None, engine_idx=0):
        if self.fails:
            raise RuntimeError("no more")
        self.seen.append((scheduler_stats, iteration_stats))

    def log_engine_initialized(self) -> None:
        self.seen.append("opened")

    def log(self) -> None:
        self.lines += 1


def test_a_stat_logger_gets_differences_and_may_fail() -> None:
    now = [0.0]
    made: list[Log] = []

    def make(config: Any, index: int) -> Log:
        made.append(Log(config, index))
        return made[-1]

    loggers = StatLoggers(Settings(), clock=lambda: now[0])
    loggers.add([make, make])
    first = EngineStats(num_running=2, generation_tokens=5, prompt_tokens_computed=9, steps=1)
    loggers.take(first)
    loggers.take(EngineStats(num_running=1, generation_tokens=8, prefix_hits=4, prompt_tokens_computed=9, steps=2))  # fmt: skip  # noqa: E501
    assert made[0].seen[0] == "opened"
    counts = [(done.num_generation_tokens, done.num_prompt_tokens) for _, done in made[0].seen[1:]]
    assert counts == [(5, 9), (3, 0)]
    assert made[0].seen[2][0].prefix_cache_stats.hits == 4
    loggers.take(EngineStats(generation_tokens=2, steps=1))  # the engine was started again
    assert made[0].seen[3][1].num_generation_tokens == 2
    now[0] = 11.0
    made[0].fails = True
    loggers.take(EngineStats(generation_tokens=3, steps=2))
    loggers.take(EngineStats(generation_tokens=4, steps=3))
    assert made[0].lines == 0 and len(made[0].seen) == 4, "one that fails is not called again"
    assert made[1].lines == 1 and len(made[1].seen) == 6


def test_a_model_is_added_by_its_description() -> None:
    import torch

    with pytest.raises(TypeError, match="description"):
        ModelRegistry.register_model("Other", torch.nn.Linear)  # type: ignore[arg-type]


def test_the_front_loads_no_torch_for_plugins_that_are_not_there() -> None:
    code = textwrap.dedent(
        """
        import sys
        from quire.config import plugins
        plugins.load_general(); plugins.processor_classes([])
        print("torch" in sys.modules)
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
