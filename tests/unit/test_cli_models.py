"""`quire models`, and the page that is written from the same rows."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from quire.cli.main import main
from quire.models.catalogue import rows
from quire.models.registry import ALIASES, ARCHITECTURES

ROOT = Path(__file__).resolve().parents[2]
DEMO = ROOT / "quire" / "models" / "demo"
Capture = pytest.CaptureFixture[str]


def test_every_architecture_has_a_row() -> None:
    found = rows()
    assert {row.name for row in found} == set(ARCHITECTURES)
    assert {name for row in found for name in row.also} == set(ALIASES)
    parts = {row.name: row.parts for row in found}
    assert parts["MixtralForCausalLM"] == ("experts",)
    assert parts["GPT2LMHeadModel"] == ("learned positions",)
    assert parts["LlamaForCausalLM"] == ()
    assert "bias of the head" in parts["PhiForCausalLM"]


def test_an_alias_stands_for_a_known_name() -> None:
    assert set(ALIASES.values()) <= set(ARCHITECTURES)
    assert not set(ALIASES) & set(ARCHITECTURES)


def test_the_list(capsys: Capture) -> None:
    assert main(["models"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(ARCHITECTURES) + 1
    assert lines[-1] == f"{len(ARCHITECTURES)} architectures"
    assert {line.split()[0] for line in lines[:-1]} == set(ARCHITECTURES)


def test_a_part_of_a_name_and_json(capsys: Capture) -> None:
    assert main(["models", "--json", "mpt"]) == 0
    (one,) = json.loads(capsys.readouterr().out)
    assert one["name"] == "MptForCausalLM"
    assert "MPTForCausalLM" in one["also"]
    assert main(["models", "no-such-model"]) == 1
    assert "no-such-model" in capsys.readouterr().err


def test_a_checkpoint_is_described(capsys: Capture, tmp_path: Path) -> None:
    assert main(["models", str(DEMO)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["architecture"] == "Qwen3ForCausalLM"
    assert found["layers"][0]["mixer"]["qk_norm"] == "per_head"
    assert main(["models", str(tmp_path)]) == 2
    assert "config.json" in capsys.readouterr().err


def test_the_page_is_up_to_date() -> None:
    command = [sys.executable, "tools/write_models_page.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
