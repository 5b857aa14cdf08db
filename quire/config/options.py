"""Every setting as an option: its flag, its type, and its value from text or the environment.

The settings stand in `config.schema`; the command line made of these options is `config.cli`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_origin, get_type_hints

from quire.config import env, values
from quire.config.plugins import Names
from quire.config.schema import Settings
from quire.config.server import ServerConfig
from quire.protocol.errors import SettingsError


@dataclass(frozen=True)
class Option:
    """One setting as the command line sees it; `leaf` is the field of `Settings`, or `server`."""

    name: str
    leaf: str
    group: str
    kind: Any
    field: dataclasses.Field[Any]

    @property
    def flag(self) -> str:
        return "--" + (self.field.metadata["flag"] or self.name).replace("_", "-")

    @property
    def is_bool(self) -> bool:
        return values.optional_part(self.kind)[0] is bool

    @property
    def is_list(self) -> bool:
        return get_origin(values.optional_part(self.kind)[0]) is list

    @property
    def is_json(self) -> bool:
        return get_origin(values.optional_part(self.kind)[0]) is dict

    @property
    def choices(self) -> Collection[str] | None:
        listed: tuple[str, ...] | None = self.field.metadata["choices"]
        if listed and self.field.metadata["grows"]:
            return Names(self.name, listed)
        return listed or values.choices_of(self.kind)

    @property
    def default(self) -> Any:
        if self.field.default_factory is not dataclasses.MISSING:
            return self.field.default_factory()
        return self.field.default


@cache
def options(*, server: bool) -> Mapping[str, Option]:
    """Every setting by field name, in the order of the schema; those of the server too if wanted."""
    found: dict[str, Option] = {}
    leaves = dict(get_type_hints(Settings))
    if server:
        leaves["server"] = ServerConfig
    for leaf, kind in leaves.items():
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            assert field.name not in found, f"two settings are called {field.name}"
            found[field.name] = Option(field.name, leaf, kind.__name__, hints[field.name], field)
    return found


def convert(option: Option, text: Any) -> Any:
    """The value of an option from its text, texts or truth value. Raises SettingsError."""
    if isinstance(text, bool):
        return text
    try:
        if isinstance(text, list):
            return [item for one in text for item in values.text_list(one)]
        if option.name == "max_model_len" and text == "auto":
            return -1
        return values.parse(option.kind, text)
    except ValueError as error:
        raise SettingsError(f"{option.flag}: {error}") from None


def from_environment(known: Mapping[str, Option]) -> dict[str, Any]:
    """Values that the environment gives, by field name. Raises SettingsError naming the variable."""
    found: dict[str, Any] = {}
    for name, option in known.items():
        variable = option.field.metadata["env"]
        text = env.read(variable) if variable else None
        if not text:
            continue
        try:
            value = values.parse(option.kind, text)
        except ValueError as error:
            raise SettingsError(f"environment variable {variable}: {error}") from None
        found[name] = value
    return found
