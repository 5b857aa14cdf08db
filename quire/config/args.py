"""`EngineArgs`: every setting of an engine as one flat set of keyword arguments.

The settings themselves stand in `config.schema`, the flags without effect here in `known_flags`.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
from collections.abc import Collection
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

from quire.config.demo import with_model
from quire.config.known_flags import KNOWN_FLAGS, judge
from quire.config.plugins import Names, reference_to
from quire.config.schema import Settings
from quire.config.values import fitting
from quire.protocol.errors import SettingsError

logger = logging.getLogger(__name__)


@cache
def setting_places() -> dict[str, tuple[str, dataclasses.Field[Any]]]:
    """Field name -> (name of the leaf in `Settings`, the dataclass field)."""
    places: dict[str, tuple[str, dataclasses.Field[Any]]] = {}
    for leaf, kind in get_type_hints(Settings).items():
        for one in dataclasses.fields(kind):
            assert one.name not in places, f"two settings are called {one.name}"
            places[one.name] = (leaf, one)
    return places


@cache
def _choices() -> dict[str, Collection[Any]]:
    """Field name -> the values it may have, for fields that list them."""
    found: dict[str, Collection[Any]] = {}
    for leaf in get_type_hints(Settings).values():
        hints = get_type_hints(leaf)
        for one in dataclasses.fields(leaf):
            if one.metadata.get("choices"):
                none = () if one.default is not None else (None,)
                names = (*none, *one.metadata["choices"])
                found[one.name] = Names(one.name, names) if one.metadata["grows"] else names
            elif get_origin(hints[one.name]) is Literal:
                found[one.name] = get_args(hints[one.name])
    return found


class EngineArgs:
    """The settings of an engine, read and written as attributes.

    Takes every field of the leaves of `config.schema.Settings` by name. A flag that is known but has
    no effect is logged once; one that is refused raises SettingsError with the reason; any other
    name raises TypeError.
    """

    def __init__(self, model: str = "", **values: Any) -> None:
        self._values: dict[str, Any] = {}
        self.model = model
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        elif name in setting_places():
            self._values[name] = _checked(name, value)
        else:
            _known_or_raise(type(self).__name__, name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        if name in self._values:
            return self._values[name]
        if name in setting_places():
            field = setting_places()[name][1]
            if field.default_factory is not dataclasses.MISSING:
                self._values[name] = field.default_factory()
                return self._values[name]
            return field.default
        raise AttributeError(f"{type(self).__name__} has no setting {name!r}")

    def __repr__(self) -> str:
        inside = ", ".join(f"{name}={value!r}" for name, value in self._values.items())
        return f"{type(self).__name__}({inside})"

    def to_settings(self) -> Settings:
        """The same settings as frozen leaves, with the demo model if none is named."""
        leaves: dict[str, dict[str, Any]] = {}
        for name, value in self._values.items():
            leaves.setdefault(setting_places()[name][0], {})[name] = value
        hints = get_type_hints(Settings)
        return with_model(
            Settings(**{leaf: hints[leaf](**values) for leaf, values in leaves.items()})
        )


class AsyncEngineArgs(EngineArgs):
    """The settings of an `AsyncLLM`; the same fields."""


def _checked(name: str, value: Any) -> Any:
    """The value as its field has it, text of numbers read as in a flag; SettingsError if it is not allowed."""
    if name == "model":
        if not isinstance(value, str):
            if not hasattr(value, "__fspath__"):
                raise TypeError(f"model must be a folder's name, not {type(value).__name__}")
            value = value.__fspath__()
    elif name in ("served_model_name", "api_key"):
        value = [] if value is None else [value] if isinstance(value, str) else list(value)
    elif name == "max_model_len" and value == "auto":
        value = -1
    elif name == "logits_processors":
        value = [reference_to(one) for one in ([] if value is None else value)]
    elif name in _choices() and value not in _choices()[name]:
        allowed = ", ".join(str(one) for one in _choices()[name] if one is not None)
        raise SettingsError(f"{name} is {value!r}; it must be one of: {allowed}")
    else:
        try:
            value = fitting(_kinds()[name], value)
        except ValueError as error:
            raise SettingsError(f"{name} is {value!r:.80}; {error}") from None
    return value


@cache
def _kinds() -> dict[str, Any]:
    """Field name -> its type."""
    return {
        name: kind
        for leaf in get_type_hints(Settings).values()
        for name, kind in get_type_hints(leaf).items()
    }


def _known_or_raise(owner: str, name: str, value: Any) -> None:
    """Accepts a known flag that changes nothing; raises for one refused (SettingsError) or unknown."""
    if name not in KNOWN_FLAGS:
        near = difflib.get_close_matches(name, setting_places(), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise TypeError(f"{owner} got an unknown argument {name!r}{hint}")
    sentence = judge(name, value)
    if sentence is not None:
        logger.info("%s has no effect: %s", name, sentence)
