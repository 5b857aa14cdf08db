"""The value of --structured-outputs-config, read and checked.

The flag itself is `config.schema.GrammarConfig`; what acts on it is `frontend.structured` and `engine.grammar`.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any

from quire.config.schema import GrammarConfig
from quire.protocol.errors import SettingsError

_NOT_OURS = {
    "outlines": "its automata grow with the schema and are kept on disk; use auto, guidance or xgrammar",
    "lm-format-enforcer": "it walks the vocabulary in Python for every token; use auto, guidance or xgrammar",
}
_MODULES = {"guidance": "llguidance", "xgrammar": "xgrammar"}
_WITHOUT_EFFECT = ("disable_fallback",)  # there is one backend for all kinds of constraints
_ELSEWHERE = {
    "reasoning_parser": "--reasoning-parser",
    "reasoning_parser_plugin": "--reasoning-parser-plugin",
}


@dataclass(frozen=True, kw_only=True)
class ConstraintOptions:
    """What the flag says, with defaults. `backend` is guidance or xgrammar."""

    backend: str = "guidance"
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    enable_in_reasoning: bool = False


def read_constraint_options(config: GrammarConfig) -> ConstraintOptions:
    """The options of a configuration.

    Raises SettingsError for an unknown key, a wrong type, or a backend that is not there.
    """
    given: dict[str, Any] = dict(config.structured_outputs_config)
    name = "structured_outputs_config"
    switches: dict[str, bool] = {}
    for key, value in given.items():
        if key in _ELSEWHERE:
            if value:
                raise SettingsError(f"{name} has {key}; give it as {_ELSEWHERE[key]} instead")
        elif key == "backend":
            continue
        elif key not in ConstraintOptions.__dataclass_fields__ and key not in _WITHOUT_EFFECT:
            known = ", ".join(ConstraintOptions.__dataclass_fields__)
            raise SettingsError(f"{name} has the unknown key {key!r}; known are {known}")
        elif not isinstance(value, bool):
            raise SettingsError(f"{name}.{key} is {value!r}; it must be true or false")
        elif key not in _WITHOUT_EFFECT:
            switches[key] = value
    backend = given.get("backend") or config.guided_decoding_backend or "auto"
    return ConstraintOptions(backend=_backend(backend), **switches)


def _backend(name: Any) -> str:
    """Raises SettingsError for a backend that is not served or not installed."""
    name = "guidance" if name == "auto" else name
    if name in _NOT_OURS:
        raise SettingsError(f"structured outputs by {name} are not served: {_NOT_OURS[name]}")
    if name not in _MODULES:
        raise SettingsError(
            f"structured_outputs_config.backend is {name!r}; it must be auto, guidance or xgrammar"
        )
    if importlib.util.find_spec(_MODULES[name]) is None:
        raise SettingsError(
            f"structured_outputs_config.backend is {name!r}, but {_MODULES[name]} is not installed: "
            f"pip install {_MODULES[name]}, or use another backend"
        )
    return str(name)
