"""Formats by the name that `--tool-call-parser` and `--reasoning-parser` give them.

A format is a file of `parsers.tools` or `parsers.reasoning`, found by being there. Files of users that
add more are `parsers.plugins`.
"""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType
from typing import Any

from quire.frontend.parsers import reasoning, tools
from quire.frontend.parsers.formats import ThinkFormat, ToolFormat
from quire.protocol.errors import SettingsError


def _collected(package: ModuleType) -> dict[str, Any]:
    """What the files of a package list as FORMATS. Raises ValueError for a name that is there twice."""
    found: dict[str, Any] = {}
    for info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        for name, form in importlib.import_module(info.name).FORMATS.items():
            if name in found:
                raise ValueError(f"{info.name}: {name!r} is already the name of another format")
            found[name] = form
    return found


TOOL_FORMATS: dict[str, ToolFormat] = _collected(tools)
THINK_FORMATS: dict[str, ThinkFormat] = _collected(reasoning)


def tool_format(name: str) -> ToolFormat:
    """The format of tool calls of this name. Raises SettingsError for an unknown one."""
    if name not in TOOL_FORMATS:
        raise SettingsError(
            f"--tool-call-parser {name!r} is not known; known are {', '.join(sorted(TOOL_FORMATS))}"
        )
    return TOOL_FORMATS[name]


def think_format(name: str) -> ThinkFormat:
    """The format of reasoning of this name. Raises SettingsError for an unknown one."""
    if name not in THINK_FORMATS:
        raise SettingsError(
            f"--reasoning-parser {name!r} is not known; known are {', '.join(sorted(THINK_FORMATS))}"
        )
    return THINK_FORMATS[name]
