"""A plug-in that takes data in the place of prompts: offline and over HTTP, with the numbers that its prompts have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from quire import LLM
from quire.config import plugins
from quire.protocol.errors import InvalidRequestError, RequestFailedError, SettingsError
from tests.distributions import install
from tests.e2e.served import served
from tests.pooling_checkpoints import states, unit, write_model, write_modules

CODE = """
from quire.protocol.io_processors import IOProcessor


def name():
    return "io_plugin.Columns"


class Columns(IOProcessor):
    # Rows of a table as texts, one for each; the answer names the row that is most like the first.
    def parse_data(self, data):
        return [f"{one['name']}: {one['value']}" for one in data["rows"]]

    def pre_process(self, prompt, request_id=None, **kwargs):
        if prompt == ["break: 1"]:
            raise RuntimeError("out of order")
        return [one if place % 2 else {"prompt": one} for place, one in enumerate(prompt)]

    def post_process(self, model_output, request_id=None, **kwargs):
        rows = [one.outputs.numbers.flat() for one in model_output]
        if len(rows) == 1:
            return object()
        return {"rows": rows, "model": self.vllm_config.model_config.runner}


class Other:
    pass
"""
POINTS = """
[vllm.io_processor_plugins]
columns = io_plugin:name
other = io_plugin:Other
"""
ROWS = [{"name": "river", "value": "runs down"}, {"name": "Bread", "value": 3}, {"name": "Snow", "value": "fell"}]  # fmt: skip  # noqa: E501
TEXTS = ["river: runs down", "Bread: 3", "Snow: fell"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return install(tmp_path_factory.mktemp("site"), "io_plugin", CODE, POINTS)


@pytest.fixture
def here(installed: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(installed))
    plugins._installed.cache_clear()
    yield
    plugins._installed.cache_clear()


@pytest.fixture
def wanted(tmp_path: Path) -> list[list[float]]:
    """A model in the folder, and Transformers' embeddings of the texts."""
    from tokenizers import Tokenizer

    model = write_model(tmp_path, "Bert")
    write_modules(tmp_path, "mean")
    tokens = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    return [unit(states(model, tokens.encode(one).ids).mean(0)).tolist() for one in TEXTS]


def test_offline(here: None, tmp_path: Path, wanted: list[list[float]]) -> None:
    with LLM(str(tmp_path), dtype="float32", io_processor_plugin="columns") as llm:
        (found,) = llm.encode({"data": {"rows": ROWS}}, use_tqdm=False)
        plain = llm.encode(TEXTS, use_tqdm=False)
        assert found.outputs["rows"] == [one.outputs.numbers.flat() for one in plain]
        for row, numbers in zip(found.outputs["rows"], wanted, strict=True):
            assert row == pytest.approx(numbers, abs=2e-5)
        assert found.finished and found.prompt_token_ids == [
            i for one in plain for i in one.prompt_token_ids
        ]
        with pytest.raises(InvalidRequestError, match="refuses data: KeyError: 'rows'"):
            llm.encode({"data": {}}, use_tqdm=False)
        with pytest.raises(RequestFailedError, match="made no prompts"):
            llm.encode({"data": {"rows": []}}, use_tqdm=False)
    with (
        LLM(str(tmp_path), dtype="float32") as llm,
        pytest.raises(InvalidRequestError, match="--io-processor-plugin"),
    ):
        llm.encode({"data": {"rows": ROWS}}, use_tqdm=False)
    with pytest.raises(SettingsError, match="installed as 'nobody'; installed: columns, other"):
        LLM(str(tmp_path / "gone"), io_processor_plugin="nobody")
    with pytest.raises(SettingsError, match=r"'other'.*derives from IOProcessor"):
        LLM(str(tmp_path), io_processor_plugin="other")


def test_over_http(installed: Path, tmp_path: Path, wanted: list[list[float]]) -> None:
    path = os.pathsep.join([str(installed), os.environ.get("PYTHONPATH", "")])
    words = (str(tmp_path), "--dtype", "float32", "--io-processor-plugin", "columns")
    with served(tmp_path, *words, PYTHONPATH=path) as server:
        found = server.post({"data": {"rows": ROWS}, "request_id": "mine"}, "/pooling").json()
        assert found["request_id"] == "pool-mine" and found["created_at"] > 0
        for row, numbers in zip(found["data"]["rows"], wanted, strict=True):
            assert row == pytest.approx(numbers, abs=2e-5)
        for body, status, part in (
            ({"data": {}}, 400, "refuses data: KeyError"),
            ({"data": {"rows": ROWS}, "input": "a"}, 400, "cannot be used together"),
            ({"data": {"rows": []}}, 500, "made no prompts"),
            (
                {"data": {"rows": [{"name": "break", "value": 1}]}},
                500,
                "RuntimeError: out of order",
            ),
            ({"data": {"rows": ROWS[:1]}}, 500, "is no JSON"),
        ):
            answer = server.post(body, "/pooling")
            assert (answer.status_code, part in answer.text) == (status, True), answer.text
        again = server.post({"data": {"rows": ROWS}}, "/pooling").json()
        assert again["data"] == found["data"], "what failed harmed nobody"
