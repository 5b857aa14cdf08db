"""Settings: how text becomes a value, where values come from, which flags are known, what the environment says."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from quire.config import env, values
from quire.config.cli import read_serve, serve_parser
from quire.config.known_flags import KNOWN_FLAGS, judge
from quire.config.options import options
from quire.config.schema import Settings
from quire.config.server import ServerConfig
from quire.protocol.errors import SettingsError

FLAGS = [
    line
    for line in Path(__file__).with_name("vllm_flags.txt").read_text().splitlines()
    if line and not line.startswith("#")
]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in env.VARIABLES:
        monkeypatch.delenv(variable.name, raising=False)
        if variable.alias:
            monkeypatch.delenv(variable.alias, raising=False)


# --- values


@pytest.mark.parametrize(("text", "value"), [
    ("4096", 4096), ("25.6k", 25_600), ("1K", 1024), ("4G", 4 * 2**30), ("2g", 2 * 10**9), ("1M", 2**20),
    ("0.5m", 500_000), ("1T", 2**40), ("-1", -1), ("16_384", 16384),
])  # fmt: skip
def test_whole_numbers_as_people_write_them(text: str, value: int) -> None:
    assert values.human_int(text) == value


@pytest.mark.parametrize("text", ["1.5K", "1.5", "k", "1kb", "0.0005k", "", "1e3", "0x10", "--1"])
def test_what_is_no_whole_number(text: str) -> None:
    with pytest.raises(ValueError):
        values.human_int(text)


def test_values_by_type() -> None:
    assert values.parse(int | None, "None") is None
    assert values.parse(str | None, "") is None
    assert values.parse(str, "None") == "None"
    assert values.parse(float, "0.5") == 0.5
    assert values.parse(dict[str, Any], '{"a": 1}') == {"a": 1}
    assert values.parse(list[str], '["a", "b"]') == ["a", "b"]
    assert [values.parse(bool, word) for word in ("true", "0", "YES", "off")] == [
        True,
        False,
        True,
        False,
    ]
    for kind, text in (
        (int, "abc"), (float, "x"), (dict[str, Any], "{"), (dict[str, Any], "[1]"), (bool, "maybe"),
        (list[str], "[1]"), (list[str], "["), (dict[str, Any], "[" * 10**5),
    ):  # fmt: skip
        with pytest.raises(ValueError):
            values.parse(kind, text)


# --- the schema


def test_every_setting_has_help_and_one_place() -> None:
    names: list[str] = []
    for leaf in (*get_type_hints(Settings).values(), ServerConfig):
        for field in dataclasses.fields(leaf):
            assert field.metadata["help"], field.name
            names.append(field.name)
    assert len(names) == len(set(names)) == len(options(server=True))
    assert not set(names) & set(KNOWN_FLAGS)


def test_defaults_of_the_command_line_are_those_of_the_schema() -> None:
    read = read_serve(["m"])
    assert read.settings == dataclasses.replace(
        Settings(), model=dataclasses.replace(Settings().model, model="m")
    )
    assert read.server == ServerConfig() and read.notes == []
    assert read.settings.model.hf_overrides is not read_serve(["m"]).settings.model.hf_overrides


# --- flags of vLLM


def actions() -> dict[str, argparse.Action]:
    return serve_parser()._option_string_actions


@pytest.mark.parametrize("flag", FLAGS)
def test_every_flag_of_vllm_acts_is_listed_or_is_refused(flag: str) -> None:
    name = flag[2:].replace("-", "_")
    assert flag in actions()
    known = KNOWN_FLAGS.get(name)
    if known is None:
        assert name in options(server=True) or name == "config"
        return
    assert judge(name, known.default) is None
    assert known.sentence and known.sentence[0].islower() and not known.sentence.endswith(".")
    spelled = [flag, flag.replace("-", "_").replace("__", "--", 1)]
    for spelling in spelled:
        words: dict[str, list[list[str]]] = {
            "bool": [[spelling], [spelling.replace("--", "--no-", 1)]],
            "value": [[spelling, "surprising"]],
            "list": [[spelling, "a", "b"]],
            "json": [[spelling, '{"surprising": 1}'], [f"{spelling}.a.b", "3"]],
        }
        effects = []
        for one in words[known.kind]:
            try:
                effects.append(bool(read_serve(["m", *one]).notes))
            except SystemExit as ended:
                assert ended.code == 2 and known.verdict == "refused"
                effects.append(True)
        assert any(effects), "a value that is not the default must be shown or refused"


def test_a_refusal_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_serve(["m", "--quantization-config", '{"linear": "fp8"}'])
    assert ended.value.code == 2
    assert "cannot be used: a checkpoint's own settings are read" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        read_serve(["m", "-q", "aqlm"])
    assert "int8" in capsys.readouterr().err
    assert read_serve(["m", "-q", "int4"]).settings.model.quantization == "int4"
    with pytest.raises(SettingsError, match="one device"):
        judge("pipeline_parallel_size", 2)


def test_short_spellings() -> None:
    read = read_serve(["m", "-tp", "2", "-pp", "1", "-dp=1", "-O2", "-cc.mode=3", "-O", "3"])
    assert read.settings.parallel.tensor_parallel_size == 2
    assert sorted(note.split()[0] for note in read.notes) == [
        "--compilation-config",
        "--optimization-level",
    ]


# --- environment


def test_own_names_win_over_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOGGING_LEVEL", "DEBUG")
    assert env.log_level() == "debug"
    monkeypatch.setenv("QUIRE_LOG_LEVEL", "error")
    assert env.log_level() == "error"
    monkeypatch.setenv("QUIRE_LOG_LEVEL", "loud")
    with pytest.raises(SettingsError, match="QUIRE_LOG_LEVEL"):
        env.log_level()


def test_truth_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert env.engine_in_own_process() is False
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    assert env.engine_in_own_process() is True
    monkeypatch.setenv("QUIRE_ENGINE_PROCESS", "no")
    assert env.engine_in_own_process() is False
    monkeypatch.setenv("QUIRE_ENGINE_PROCESS", "perhaps")
    with pytest.raises(SettingsError):
        env.engine_in_own_process()


def test_names_that_do_nothing_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")
    monkeypatch.setenv("VLLM_API_KEY", "k")
    monkeypatch.setenv("QUIRE_LOG_LEVLE", "info")
    assert "VLLM_USE_FLASHINFER_SAMPLER" in env.without_effect()
    assert env.unknown() == ["QUIRE_LOG_LEVLE"]
    assert "VLLM_API_KEY" not in env.without_effect()


def test_fewer_than_ten_variables_are_our_own() -> None:
    assert len([one for one in env.VARIABLES if one.name.startswith("QUIRE_")]) < 10


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert env.cache_dir() == tmp_path / "quire"
    monkeypatch.setenv("QUIRE_CACHE_DIR", "/x/y")
    assert env.cache_dir() == Path("/x/y")
