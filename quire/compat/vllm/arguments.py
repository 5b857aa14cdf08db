"""Command lines of programs written for vLLM: its argument parser, and engine settings read from one.

The settings and their flags are `quire.config`'s; this gives them to a parser that is not ours.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import quire.config.args
from quire.config.args import setting_places
from quire.config.file import yaml_words
from quire.config.known_flags import KNOWN_FLAGS
from quire.config.options import Option, convert, options
from quire.config.plugins import PluginConfig
from quire.config.values import loose
from quire.config.words import json_flags, normalise
from quire.protocol.errors import SettingsError


class FlexibleArgumentParser(argparse.ArgumentParser):
    """An argument parser for which `-` and `_` in names are the same, and JSON may be given key by key.

    `--config FILE.yaml` reads arguments from a file; words on the command line win.
    """

    def add_argument(self, *names: Any, **settings: Any) -> Any:
        """As argparse's, with names made plain."""
        return super().add_argument(*_plain(names), **settings)

    def add_argument_group(self, *names: Any, **settings: Any) -> Any:
        """As argparse's, for a group whose names are made plain too."""
        group = super().add_argument_group(*names, **settings)
        add = group.add_argument
        group.add_argument = lambda *flags, **how: add(*_plain(flags), **how)  # type: ignore[method-assign]
        return group

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, after the words were made plain."""
        words = list(sys.argv[1:] if args is None else args)
        try:
            words = normalise(self._with_file(words), json_flags())
        except SettingsError as error:
            self.error(str(error))
        return super().parse_known_args(words, namespace)

    def _with_file(self, words: list[str]) -> list[str]:
        for at, word in enumerate(words):
            name, equals, value = word.partition("=")
            if name == "--config" and "--config" not in self._option_string_actions:
                rest = words[:at] + words[at + (1 if equals else 2) :]
                if not equals and at + 1 == len(words):
                    self.error("--config needs a file")
                path = Path(value if equals else words[at + 1])
                return yaml_words(path, self._option_string_actions) + rest
        return words


def _plain(names: Sequence[Any]) -> list[Any]:
    return [
        name.replace("_", "-") if isinstance(name, str) and name.startswith("--") else name
        for name in names
    ]


class EngineArgs(quire.config.args.EngineArgs):
    """`quire.EngineArgs` that can also be read from a command line, and by the functions of `dataclasses`."""

    __dataclass_fields__ = {name: field for name, (_, field) in setting_places().items()}

    @staticmethod
    def add_cli_args(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
        """Adds every setting and every known flag of vLLM to a parser; returns it."""
        for option in options(server=False).values():
            _add(parser, option)
        for name, flag in KNOWN_FLAGS.items():
            how: dict[str, Any] = {"dest": name, "default": flag.default, "help": argparse.SUPPRESS}
            if flag.kind == "bool":
                how["action"] = argparse.BooleanOptionalAction
            else:
                how |= {"type": loose, "nargs": "*" if flag.kind == "list" else None}
            if "--" + name.replace("_", "-") not in parser._option_string_actions:
                parser.add_argument("--" + name.replace("_", "-"), **how)
        return parser

    @classmethod
    def from_cli_args(cls, args: argparse.Namespace) -> Self:
        """The settings among the values of a parser; its other values are not looked at."""
        given = vars(args)
        return cls(**{name: given[name] for name in given if _is_setting(name)})

    def create_engine_config(self, *_: Any, **__: Any) -> PluginConfig:
        """The settings by their part; what is None is chosen when an engine starts."""
        return PluginConfig.of(self.to_settings())


class AsyncEngineArgs(EngineArgs, quire.config.args.AsyncEngineArgs):
    """The settings of an AsyncLLM; the same fields."""


def _is_setting(name: str) -> bool:
    return name in setting_places() or name in KNOWN_FLAGS


def _add(parser: argparse.ArgumentParser, option: Option) -> None:
    how: dict[str, Any] = {"dest": option.name, "default": option.default}
    how["help"] = option.field.metadata["help"].replace("%", "%%")
    if option.is_bool:
        how["action"] = argparse.BooleanOptionalAction
    else:
        how |= {"type": _reader(option), "nargs": "*" if option.is_list else None}
        how["choices"] = option.choices
        how["metavar"] = "VALUE"
    short = option.field.metadata["short"]
    parser.add_argument(option.flag, *([short] if short else []), **how)


def _reader(option: Option) -> Callable[[str], Any]:
    """What turns a word into the option's value, or into one item of a list."""

    def read(text: str) -> Any:
        if option.is_list:
            return text
        try:
            return convert(option, text)
        except SettingsError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return read


def make_arg_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Adds the settings of engine and server to a parser; returns it."""
    for option in options(server=True).values():
        if option.leaf == "server":
            _add(parser, option)
    return EngineArgs.add_cli_args(parser)
