"""Formats that users bring as Python files, declared or as classes in the manner of vLLM.

What a class becomes is `parsers.classes`; names of all formats are in `parsers.registry`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from quire.frontend.parsers import registry
from quire.frontend.parsers.classes import (
    ClassTools,
    ReasoningParser,
    ToolParser,
    thinking_of_class,
)
from quire.frontend.parsers.formats import ThinkFormat, ToolFormat
from quire.protocol.errors import SettingsError

_Base = TypeVar("_Base")
_loaded: set[Path] = set()


def register_tool_format(name: str, form: ToolFormat) -> None:
    """Makes a format of tool calls known to `--tool-call-parser`; one of that name is replaced."""
    registry.TOOL_FORMATS[name] = form


def register_think_format(name: str, form: ThinkFormat) -> None:
    """Makes a format of reasoning known to `--reasoning-parser`; one of that name is replaced."""
    registry.THINK_FORMATS[name] = form


def load_plugin(path: str) -> None:
    """Runs a Python file that registers formats, once; "" is no file.

    Raises SettingsError if it cannot be run or registers nothing.
    """
    if not path:
        return
    file = Path(path).resolve()
    if file in _loaded:
        return
    before = {**registry.TOOL_FORMATS}, {**registry.THINK_FORMATS}
    spec = importlib.util.spec_from_file_location(f"quire_parser_plugin_{file.stem}", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise SettingsError(f"the parser plug-in {path!r} is not a Python file that can be read")
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    except Exception as error:  # a plug-in may raise anything
        raise SettingsError(
            f"the parser plug-in {path!r} failed: {type(error).__name__}: {error}"
        ) from error
    if before == (registry.TOOL_FORMATS, registry.THINK_FORMATS):
        raise SettingsError(
            f"the parser plug-in {path!r} registers no parser; docs/howto_parser.md shows how"
        )
    _loaded.add(file)


class ParserManager(Generic[_Base]):
    """Registers classes of one kind by name.

    base    what they are made from.
    forms   where their formats go; `form_of` makes one of a class.
    """

    def __init__(
        self, base: type[_Base], forms: dict[str, Any], form_of: Callable[[Any], Any]
    ) -> None:
        self._base = base
        self._forms = forms
        self._form_of = form_of
        self._classes: dict[str, type[_Base]] = {}

    def register_module(
        self,
        name: str | Sequence[str] | None = None,
        force: bool = True,
        module: type[_Base] | None = None,
    ) -> Any:
        """A decorator that registers a class, or with `module` the registration itself.

        name  one or several; without, the class's own.
        Raises TypeError for a class of another kind, KeyError for a known name without `force`.
        """

        def register(found: type[_Base]) -> type[_Base]:
            if not (isinstance(found, type) and issubclass(found, self._base)):
                raise TypeError(f"{found!r} is not a subclass of {self._base.__name__}")
            names = [name] if isinstance(name, str) else name or [found.__name__]
            for one in names:
                if not force and one in self._forms:
                    raise KeyError(f"{one!r} is already registered; force=True replaces it")
                self._classes[one] = found
                self._forms[one] = self._form_of(found)
            return found

        return register if module is None else register(module)

    def register_lazy_module(self, name: str, module_path: str, class_name: str) -> None:
        """Registers a class by the place from which it is imported, now."""
        self.register_module(name, module=getattr(importlib.import_module(module_path), class_name))

    def get(self, name: str) -> type[_Base]:
        """The class that was registered under a name. Raises KeyError, for built-in formats too."""
        if name not in self._classes:
            raise KeyError(f"no class is registered as {name!r}; built-in formats are no classes")
        return self._classes[name]

    def list_registered(self) -> list[str]:
        """All known names, of built-in formats too."""
        return sorted(self._forms)


class _ToolParserManager(ParserManager[ToolParser]):
    get_tool_parser = ParserManager[ToolParser].get
    import_tool_parser = staticmethod(load_plugin)


class _ReasoningParserManager(ParserManager[ReasoningParser]):
    get_reasoning_parser = ParserManager[ReasoningParser].get
    import_reasoning_parser = staticmethod(load_plugin)


ToolParserManager = _ToolParserManager(ToolParser, registry.TOOL_FORMATS, ClassTools)
ReasoningParserManager = _ReasoningParserManager(
    ReasoningParser, registry.THINK_FORMATS, thinking_of_class
)
