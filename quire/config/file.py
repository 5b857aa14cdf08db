"""A YAML file of settings, read as command-line words so that both mean the same.

What the words mean is `config.cli`.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quire.protocol.errors import SettingsError


def yaml_words(path: Path, actions: Mapping[str, argparse.Action]) -> list[str]:
    """The YAML file as command-line words. Raises SettingsError naming the file and the place."""
    yaml = importlib.import_module("yaml")  # 20 ms that only --config needs

    if path.suffix not in (".yaml", ".yml"):
        raise SettingsError(f"--config {path}: the file's name must end in .yaml or .yml")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "it is not text"
        raise SettingsError(f"--config {path}: not valid YAML{place}: {problem}") from None
    if content is None:
        return []
    if not isinstance(content, dict):
        raise SettingsError(f"--config {path}: the file must be a map of names to values")
    words: list[str] = []
    for key, value in content.items():
        words += _entry(path, str(key), value, actions)
    return words


def _entry(path: Path, key: str, value: Any, actions: Mapping[str, argparse.Action]) -> list[str]:
    flag = "--" + key.replace("_", "-")
    if flag not in actions or flag == "--config":
        near = difflib.get_close_matches(flag, actions, n=1)
        hint = f"; did you mean {near[0][2:]}?" if near else ""
        raise SettingsError(f"--config {path}: unknown key {key!r}{hint}")
    if value is None:
        return [] if actions[flag].nargs == 0 else [flag, "None"]
    if isinstance(value, bool):
        if isinstance(actions[flag], argparse.BooleanOptionalAction):
            return [flag if value else "--no-" + flag[2:]]
        return [flag, str(value).lower()]
    if isinstance(value, dict):
        return [flag, json.dumps(value)]
    if isinstance(value, list):
        if actions[flag].nargs != "*":
            raise SettingsError(f"--config {path}: {key} takes one value, not a list")
        return [flag, json.dumps([str(item) for item in value])]
    return [f"{flag}={value}"]
