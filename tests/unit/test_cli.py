"""The command line: precedence, YAML equal to flags, dotted keys, errors, help, commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import quire
from quire.cli.main import main
from quire.config.cli import ServeOptions, read_serve

Write = Callable[[str], str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def run(text: str, name: str = "settings.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return run


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "QUIRE_API_KEY",
        "VLLM_API_KEY",
        "VLLM_MAX_N_SEQUENCES",
        "QUIRE_LOG_LEVEL",
        "VLLM_LOGGING_LEVEL",
    ):
        monkeypatch.delenv(name, raising=False)


def fails(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The error of wrong words: at most five lines, exit 2."""
    with pytest.raises(SystemExit) as ended:
        read_serve(words)
    assert ended.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text and len(text.splitlines()) <= 5
    return text


# --- values


def test_dashes_and_underscores_are_the_same() -> None:
    one = read_serve(["m", "--max-model-len", "4K", "--no-enable-prefix-caching"])
    two = read_serve(["m", "--max_model_len=4K", "--no_enable_prefix_caching"])
    assert one == two
    assert one.settings.model.max_model_len == 4096
    assert one.settings.cache.enable_prefix_caching is False


def test_lists_and_optionals() -> None:
    read = read_serve(
        [
            "m",
            "--served-model-name",
            "a",
            "b",
            "--revision",
            "None",
            "--allowed-origins",
            '["x","y"]',
        ]
    )
    assert read.settings.model.served_model_name == ["a", "b"]
    assert read.settings.model.revision is None
    assert read.server.allowed_origins == ["x", "y"]
    assert read_serve(["m", "--max-model-len", "auto"]) == read_serve(
        ["m", "--max-model-len", "-1"]
    )


def test_the_model_s_place_wins_over_its_flag() -> None:
    assert read_serve(["--model", "a"]).settings.model.model == "a"
    assert read_serve(["b", "--model", "a"]).settings.model.model == "b"


@pytest.mark.parametrize("words", [
    ["--hf-overrides", '{"a": {"b": 3, "c": [1, 2]}, "d": "x"}'],
    ["--hf-overrides.a.b", "3", "--hf-overrides.a.c+", "1", "--hf-overrides.a.c+=2", "--hf_overrides.d=x"],
    ["--hf-overrides", '{"a": {"b": 3}}', "--hf-overrides.a.c", "[1, 2]", "--hf-overrides.d", "x"],
    ["--hf-overrides.a", '{"b": 3, "c": [1, 2]}', "--hf-overrides.d", '"x"'],
])  # fmt: skip
def test_json_and_dotted_keys_say_the_same(words: list[str]) -> None:
    found = read_serve(["m", *words]).settings.model.hf_overrides
    assert found == {"a": {"b": 3, "c": [1, 2]}, "d": "x"}


def test_bare_sizes_inside_dotted_keys() -> None:
    assert read_serve(["m", "--hf-overrides.a", "4k"]).settings.model.hf_overrides == {"a": 4000}
    assert read_serve(["m", "--hf-overrides.a", "None"]).settings.model.hf_overrides == {"a": None}


# --- where values come from

YAML = """
model: from-file
port: 9000
served_model_name: [one, two]
max-model-len: 2K
enable-prefix-caching: false
hf_overrides:
  rope_scaling: {factor: 2.0}
  layers: [1, 2]
api-key: secret
revision: null
gpu_memory_utilization: 0.5
enforce_eager: true
compilation_config: {mode: 3}
pipeline_parallel_size: 1
"""

WORDS = [
    "from-file", "--port", "9000", "--served-model-name", "one", "two", "--max-model-len", "2048",
    "--no-enable-prefix-caching", "--hf-overrides", '{"rope_scaling": {"factor": 2.0}, "layers": [1, 2]}',
    "--api-key", "secret", "--revision", "None", "--gpu-memory-utilization", "0.5", "--enforce-eager",
    "-cc.mode=3", "-pp", "1",
]  # fmt: skip


def test_a_file_equals_the_same_words(write: Write) -> None:
    def plain(read: ServeOptions) -> tuple[Any, ...]:
        return read.settings, read.server, read.given, sorted(read.notes)

    assert plain(read_serve(["--config", write(YAML)])) == plain(read_serve(WORDS))


def test_flags_win_over_the_file_and_the_file_over_the_environment(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "environment")
    monkeypatch.setenv("VLLM_MAX_N_SEQUENCES", "7")
    path = write(YAML)
    assert read_serve(["m"]).server.api_key == ["environment"]
    assert read_serve(["m"]).server.max_num_choices == 7
    assert read_serve(["--config", path]).server.api_key == ["secret"]
    both = read_serve(["other", "--config", path, "--api-key", "flag", "--port=1"])
    assert (both.server.api_key, both.server.port, both.settings.model.model) == (
        ["flag"],
        1,
        "other",
    )
    assert both.settings.cache.gpu_memory_utilization == 0.5
    monkeypatch.setenv("QUIRE_API_KEY", "own")
    assert read_serve(["m"]).server.api_key == ["own"]


def test_a_bad_variable_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("VLLM_MAX_N_SEQUENCES", "many")
    assert "VLLM_MAX_N_SEQUENCES: 'many' is not a whole number" in fails(["m"], capsys)


# --- mistakes


@pytest.mark.parametrize(("words", "part"), [
    (["m", "--max-model-lem", "3"], "unknown argument --max-model-lem; did you mean --max-model-len?"),
    (["m", "extra"], "unknown argument extra"),
    (["m", "--max-model-len", "abc"], "--max-model-len: 'abc' is not a whole number"),
    (["m", "--max-model-len", "1.5K"], "K is binary and takes no fraction"),
    (["m", "--max-model-len"], "expected one argument"),
    (["m", "--max-mod", "3"], "unknown argument --max-mod"),
    (["m", "--gpu-memory-utilization", "half"], "is not a number"),
    (["m", "--dtype", "int3"], "invalid choice: 'int3'"),
    (["m", "--load-format", "pickle"], "invalid choice: 'pickle'"),
    (["m", "--hf-overrides", "{"], "--hf-overrides: not valid JSON"),
    (["m", "--hf-overrides", "[1]"], "--hf-overrides: must be a JSON object, not list"),
    (["m", "--hf-overrides.a"], "needs a value"),
    (["m", "--hf-overrides.a", "1", "--hf-overrides.a.b", "2"], "already holds"),
    (["m", "--port.a", "1"], "--port takes no dotted keys"),
    (["m", "--config", "nowhere.yaml"], "No such file"),
    (["m", "--config", "settings.json"], "must end in .yaml or .yml"),
    (["m", "--enable-lora"], "adapters are not served"),
])  # fmt: skip
def test_a_wrong_word_is_two_lines_and_2(
    words: list[str], part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert part in fails(words, capsys)


@pytest.mark.parametrize(("text", "part"), [
    ("port: [", "not valid YAML in line"),
    ("a: 1\nport: 3\n", "unknown key 'a'"),
    ("prot: 3\n", "unknown key 'prot'; did you mean port?"),
    ("config: x.yaml\n", "unknown key 'config'"),
    ("- a\n- b\n", "must be a map"),
    ("port: [1, 2]\n", "port takes one value, not a list"),
    ("port: many\n", "'many' is not a whole number"),
    ("model: !!python/object/apply:os.system [id]\n", "not valid YAML in line 1"),
    ("enable_lora: true\n", "adapters are not served"),
])  # fmt: skip
def test_a_wrong_file_is_named(
    write: Write, text: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert part in fails(["m", "--config", write(text)], capsys)


def test_an_empty_file_changes_nothing(write: Write) -> None:
    assert read_serve(["m", "--config", write("# nothing\n")]) == read_serve(["m"])


# --- help and commands


@pytest.mark.parametrize(("word", "parts", "absent"), [
    ("--help", ["ModelConfig", "CacheConfig", "ServerConfig", "--help=all"], "--max-model-len VALUE"),
    ("--help=all", ["--max-model-len", "--port", "--enforce-eager"], "xyzzy"),
    ("--help=ModelConfig", ["--max-model-len", "--dtype"], "--port"),
    ("--help=max-model-len", ["--max-model-len", "longest sequence"], "--port"),
    ("--help=max_model_len", ["--max-model-len"], "--port"),
    ("--help=certificate", ["--ssl-certfile", "--ssl-ca-certs"], "--port"),
    ("--help=xyzzy", ["mentions 'xyzzy'"], "--port"),
])  # fmt: skip
def test_help(word: str, parts: list[str], absent: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_serve([word])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert all(part in text for part in parts) and absent not in text


def test_version_and_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == main(["-v"]) == 0
    assert capsys.readouterr().out.split() == [quire.__version__] * 2
    assert main([]) == 0 and "serve [MODEL]" in capsys.readouterr().out
    assert main(["fly"]) == 2 and "unknown command 'fly'" in capsys.readouterr().err


def test_serve_says_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["serve", str(tmp_path / "nowhere")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), "--port", "99999"]) == 2
    assert "--port is 99999" in capsys.readouterr().err
    assert main(["serve", str(tmp_path), "--api-key", ""]) == 2
    assert "--api-key is empty" in capsys.readouterr().err
