"""The command line and YAML file of the settings, generated from the leaves of `config.schema`.

How text becomes a value is `config.options`; how help is shown is `config.helptext`.
"""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from quire.config import values
from quire.config.demo import with_model
from quire.config.file import yaml_words
from quire.config.helptext import show_help
from quire.config.known_flags import KNOWN_FLAGS, SHORT_NAMES, judge
from quire.config.options import Option, convert, from_environment, options
from quire.config.schema import Settings
from quire.config.server import ServerConfig
from quire.config.words import json_flags, normalise
from quire.protocol.errors import SettingsError


@dataclass(frozen=True)
class ServeOptions:
    """What `quire serve` was asked for. `given` are the fields that file or flags set; `notes` are
    lines to show at start, one for each flag without effect."""

    settings: Settings
    server: ServerConfig
    given: dict[str, Any]
    notes: list[str]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are short and name the nearest flag."""

    def error(self, message: str) -> NoReturn:
        """Prints two lines and exits with 2."""
        self.exit(2, f"{self.prog}: error: {message}\nSee {self.prog} --help.\n")

    def refuse_unknown(self, words: Sequence[str]) -> None:
        """An error for words that no flag took."""
        if not words:
            return
        word = next((one for one in words if one.startswith("-")), words[0])
        name = word.split("=", 1)[0]
        near = difflib.get_close_matches(name, self._option_string_actions, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        self.error(f"unknown argument {name}{hint}")


@cache
def serve_parser(prog: str = "quire serve") -> Parser:
    """The parser of `quire serve`. Values stay text; `read_serve` turns them into settings."""
    parser = Parser(
        prog=prog, add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS
    )
    parser.add_argument(
        "model_tag", nargs="?", metavar="MODEL", help="same as --model; wins over it"
    )
    parser.add_argument("--config", metavar="FILE.yaml", help="read settings from a YAML file")
    groups: dict[str, Any] = {}
    for option in options(server=True).values():
        if option.group not in groups:
            groups[option.group] = parser.add_argument_group(option.group)
        _add_option(groups[option.group], option)
    known = parser.add_argument_group("Known flags of vLLM")
    shorts: dict[str, list[str]] = {}
    for short, name in SHORT_NAMES.items():
        shorts.setdefault(name, []).append(short)
    for name, flag in KNOWN_FLAGS.items():
        names = ["--" + name.replace("_", "-"), *shorts.get(name, [])]
        text = f"{flag.verdict}: {flag.sentence}"
        if flag.kind == "bool":
            known.add_argument(*names, dest=name, action=argparse.BooleanOptionalAction, help=text)
        else:
            nargs = "*" if flag.kind == "list" else None
            known.add_argument(*names, dest=name, nargs=nargs, metavar="VALUE", help=text)
    return parser


def _add_option(group: Any, option: Option) -> None:
    names = [option.flag]
    if option.field.metadata["short"]:
        names.append(option.field.metadata["short"])
    text = option.field.metadata["help"].replace("%", "%%")
    if option.is_bool:
        group.add_argument(
            *names, dest=option.name, action=argparse.BooleanOptionalAction, help=text
        )
    elif option.is_list:
        group.add_argument(
            *names, dest=option.name, nargs="*", action="extend", metavar="VALUE", help=text
        )
    elif option.choices:
        group.add_argument(
            *names,
            dest=option.name,
            choices=option.choices,
            help=text,
            metavar="|".join(option.choices),
        )
    else:
        group.add_argument(
            *names, dest=option.name, metavar="JSON" if option.is_json else "VALUE", help=text
        )


def read_serve(argv: Sequence[str], prog: str = "quire serve") -> ServeOptions:
    """Settings from flags, then the YAML file, then the environment, then the defaults.

    A wrong argument prints two lines and exits with 2.
    """
    parser = serve_parser(prog)
    show_help(parser, argv)
    try:
        space, rest = parser.parse_known_args(normalise(argv, json_flags()))
        parser.refuse_unknown(rest)
        texts: dict[str, Any] = {}
        if getattr(space, "config", None):
            from_file = yaml_words(Path(space.config), parser._option_string_actions)
            file_space, rest = parser.parse_known_args(normalise(from_file, json_flags()))
            parser.refuse_unknown(rest)
            texts.update(vars(file_space))
        texts.update(vars(space))
        texts.pop("config", None)
        tag = texts.pop("model_tag", None)
        if tag:
            texts["model"] = tag
        return _build(texts)
    except SettingsError as error:
        parser.error(str(error))


def _build(texts: dict[str, Any]) -> ServeOptions:
    given: dict[str, Any] = {}
    notes: list[str] = []
    known = options(server=True)
    for name, text in texts.items():
        if name in known:
            given[name] = convert(known[name], text)
        else:
            sentence = judge(name, _known_value(name, text))
            if sentence is not None:
                notes.append(f"--{name.replace('_', '-')} has no effect: {sentence}")
    leaves: dict[str, dict[str, Any]] = {}
    for name, value in (from_environment(known) | given).items():
        leaves.setdefault(known[name].leaf, {})[name] = value
    hints = get_type_hints(Settings)
    settings = Settings(**{leaf: kind(**leaves.get(leaf, {})) for leaf, kind in hints.items()})
    return ServeOptions(
        with_model(settings), ServerConfig(**leaves.get("server", {})), given, notes
    )


def _known_value(name: str, text: Any) -> Any:
    """A known flag's value in the form of its default, as far as that can be told."""
    flag = KNOWN_FLAGS[name]
    if flag.kind == "bool" or text is None or isinstance(text, list):
        return text
    value = values.loose(text)
    if isinstance(flag.default, float) and isinstance(value, int):
        return float(value)
    return text if isinstance(flag.default, str) else value
