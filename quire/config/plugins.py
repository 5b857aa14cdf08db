"""Code of the operator's own: found by name or as an installed entry point, and loaded once.

Only what the operator names or installs is loaded, never what a request or a checkpoint names. What
each kind must offer stands where it is called.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quire.config import env
from quire.config.schema import (
    CacheConfig,
    LoadConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    Settings,
)
from quire.protocol.errors import SettingsError
from quire.protocol.logits_processors import LogitsProcessor

if TYPE_CHECKING:
    from quire.protocol.io_processors import IOProcessor

logger = logging.getLogger(__name__)

GENERAL, LOGITS_PROCESSORS = "general_plugins", "logits_processors"
STAT_LOGGERS, ENDPOINTS = "stat_logger_plugins", "endpoint_plugins"
IO_PROCESSORS = "io_processor_plugins"
_PREFIXES = ("quire.", "vllm.")

_given: dict[str, type] = {}
"""Classes that a program handed over itself, by their reference; those of other processes are imported."""
_loaded_general = False
_added: dict[str, dict[str, Any]] = {}
"""By the field of a setting: what plug-ins have registered, by the name that the setting gives it."""


@dataclass(frozen=True)
class PluginConfig:
    """The settings as a plug-in sees them, under the names that plug-ins expect; all are resolved."""

    model_config: ModelConfig
    cache_config: CacheConfig
    scheduler_config: SchedulerConfig
    parallel_config: ParallelConfig
    speculative_config: None = None
    lora_config: None = None

    @classmethod
    def of(cls, settings: Settings) -> PluginConfig:
        """The view of these settings."""
        return cls(settings.model, settings.cache, settings.scheduler, settings.parallel)


def reference_to(thing: Any) -> str:
    """`module:Class` for a class, which `load` finds again, and for a text the text.

    Raises SettingsError for anything else.
    """
    if isinstance(thing, str):
        return thing
    if not inspect.isclass(thing):
        raise SettingsError(
            f"a plug-in is a class or module:Class, not an object of {type(thing).__name__}"
        )
    name = f"{thing.__module__}:{thing.__qualname__}"
    _given[name] = thing
    return name


def load(reference: str) -> Any:
    """What `module:name` or `module.name` names. Raises SettingsError with what is wrong."""
    if reference in _given:
        return _given[reference]
    module, colon, path = reference.partition(":")
    if not colon:
        module, _, path = reference.rpartition(".")
    if not module or not path:
        raise SettingsError(f"{reference!r} is not the name of a class; write module:Class")
    if module == "__main__" or "<locals>" in path:
        raise SettingsError(
            f"{reference} was made by the program itself, and the engine's own process cannot import it; put "
            "it into a module of its own"
        )
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except Exception as error:  # the operator's code may fail in any way
        raise SettingsError(
            f"{reference} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    return found


def entry_points(kind: str, *, only_named: bool = False) -> list[tuple[str, Any]]:
    """(name, entry point) of both groups of a kind, in the order of their names.

    QUIRE_PLUGINS, where it is set, lists the names that are let in; `only_named` asks for it.
    """
    allowed = env.plugins()
    if allowed is None and only_named:
        return []
    found: dict[str, Any] = {}
    for prefix in _PREFIXES:
        for point in _installed().select(group=prefix + kind):
            if allowed is None or point.name in allowed:
                found.setdefault(point.name, point)
    return sorted(found.items())


@cache
def _installed() -> importlib.metadata.EntryPoints:
    """Every entry point of this installation; reading them takes tens of milliseconds."""
    found: Any = importlib.metadata.entry_points()
    points: importlib.metadata.EntryPoints = found
    return points


def has_own_code(settings: Settings) -> bool:
    """Whether code of the operator's own runs beside a model: plug-ins, processors, or back ends of torch."""
    named = settings.model.logits_processors or _installed().select(group="torch.backends")
    return bool(named or entry_points(GENERAL) or entry_points(LOGITS_PROCESSORS))


def load_entry_points(kind: str, *, only_named: bool = False) -> list[tuple[str, Any]]:
    """(name, what it gives) of `entry_points`; one that fails is logged and left out, or raised if it was
    named in QUIRE_PLUGINS: SettingsError."""
    loaded = []
    for name, point in entry_points(kind, only_named=only_named):
        try:
            loaded.append((name, point.load()))
        except Exception as error:
            _failed(name, kind, error)
    return loaded


def load_general() -> None:
    """Runs the general plug-ins, functions without arguments, once in this process."""
    global _loaded_general
    if _loaded_general:
        return
    _loaded_general = True
    for name, function in load_entry_points(GENERAL):
        try:
            function()
        except Exception as error:
            _failed(name, GENERAL, error)


def add(setting: str, name: str, what: Any) -> None:
    """Registers what a setting may name in this process; an earlier one of that name is replaced.

    Raises ValueError for text that no flag could give, and for names that mean something already.
    """
    if not name or name.strip() != name or name.startswith("-"):
        raise ValueError(f"{name!r} cannot be registered as a {setting}: it must be a plain name")
    if name in _listed(setting):
        raise ValueError(f"the {setting} {name!r} is Quire's own; register another name")
    _added.setdefault(setting, {})[name] = what


def added(setting: str, name: str) -> Any | None:
    """What a plug-in has registered under a name; None if there is none. Runs the general plug-ins first."""
    if name in _listed(setting):
        return None
    if name not in _added.get(setting, {}):
        load_general()
    return _added.get(setting, {}).get(name)


@cache
def _listed(setting: str) -> frozenset[str]:
    """The names that a setting knows by itself."""
    every = (*fields(ModelConfig), *fields(LoadConfig))
    return frozenset(next(one for one in every if one.name == setting).metadata["choices"])


def added_names(setting: str) -> list[str]:
    """The names that plug-ins have registered in this process for a setting."""
    return sorted(_added.get(setting, {}))


class Names(Collection[Any]):
    """The values that a setting may have: those listed, and those that plug-ins register."""

    def __init__(self, setting: str, listed: Sequence[Any]) -> None:
        self._setting, self._listed = setting, listed

    def __contains__(self, value: object) -> bool:
        known = value in self._listed
        return known or (isinstance(value, str) and added(self._setting, value) is not None)

    def __iter__(self) -> Iterator[Any]:
        return iter([*self._listed, *added_names(self._setting)])

    def __len__(self) -> int:
        return len(list(iter(self)))


def code_of(thing: Any) -> str:
    """What tells a plug-in's class or function from what had its name before: its file, as it is now."""
    where = f"{thing.__module__}:{thing.__qualname__}"
    try:
        status = Path(inspect.getfile(thing)).stat()
    except (TypeError, OSError):  # typed into a prompt
        return where
    return f"{where} {status.st_size} {status.st_mtime_ns}"


def _failed(name: str, kind: str, error: Exception) -> None:
    text = f"plug-in {name!r} ({kind}) failed: {type(error).__name__}: {error}"
    if name in (env.plugins() or ()):
        raise SettingsError(text) from error
    logger.error("%s", text, exc_info=error)


def io_processor_class(name: str) -> type[IOProcessor]:
    """The IO processor whose entry point has this name: a class, or a function that gives one or names it.

    Raises SettingsError, with the names there are.
    """
    from quire.protocol.io_processors import IOProcessor  # 15 ms of each start are asyncio's

    points = dict(entry_points(IO_PROCESSORS))
    if name not in points:
        known = ", ".join(points) or "none"
        raise SettingsError(f"no IO processor is installed as {name!r}; installed: {known}")
    try:
        found = points[name].load()
        found = found if inspect.isclass(found) else found()
        found = load(found) if isinstance(found, str) else found
    except Exception as error:  # the operator's code may fail in any way
        raise SettingsError(
            f"IO processor {name!r} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    if not inspect.isclass(found) or not issubclass(found, IOProcessor):
        raise SettingsError(f"IO processor {name!r} gives no class that derives from IOProcessor")
    return found


def processor_classes(references: Sequence[str]) -> list[type[LogitsProcessor]]:
    """The logits processors that were named, then those of entry points, each once. Raises SettingsError."""
    found = [(reference, load(reference)) for reference in references]
    found += load_entry_points(LOGITS_PROCESSORS)
    for name, one in found:
        if not inspect.isclass(one) or not issubclass(one, LogitsProcessor):
            raise SettingsError(f"{name} is not a class that derives from LogitsProcessor")
        if inspect.isabstract(one):
            missing = ", ".join(sorted(one.__abstractmethods__))
            raise SettingsError(f"{name} does not define {missing}")
    return list(dict.fromkeys(one for _, one in found))
