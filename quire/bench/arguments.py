"""The words of a `quire bench` command: its own flags here, the engine's by `quire.config.cli`.

Which flags a command has stands in the command's file.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from quire.config.args import EngineArgs, setting_places
from quire.config.cli import Parser, read_serve
from quire.config.helptext import show_help
from quire.config.words import json_flags, normalise
from quire.protocol.errors import SettingsError


@dataclass(frozen=True)
class Words:
    """A command line that was read. `notes` are lines about flags without effect.

    engine_words  what is not the command's own, in the form of `quire serve`.
    """

    flags: argparse.Namespace
    engine: EngineArgs
    notes: list[str]
    engine_words: list[str]


def make_parser(command: str, description: str) -> Parser:
    """The parser of `quire bench COMMAND`; its own help text is printed by `read`."""
    return Parser(
        prog=f"quire bench {command}", description=description, allow_abbrev=False, add_help=False
    )


class _Refused(argparse.Action):
    """A flag that is known and not there: an error with the reason in `metavar`'s place."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        parser.error(f"{self.option_strings[0]} is not served: {self.metavar}")


def refuse(parser: argparse.ArgumentParser, sentences: Mapping[str, str]) -> None:
    """Flags that end the command with a sentence; several that share one stand in one key with spaces."""
    for names, sentence in sentences.items():
        for name in names.split():
            parser.add_argument(
                name, action=_Refused, nargs="*", metavar=sentence, help=argparse.SUPPRESS
            )


def add_switch(group: Any, name: str, help: str, default: bool = False) -> None:
    """A flag with its `--no-` form."""
    group.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=help)


class _Always(argparse.Action):
    """A flag for what is done anyway: accepted, and its `--no-` form an error with the reason in `metavar`."""

    def __call__(
        self, parser: argparse.ArgumentParser, _flags: Any, _values: Any, name: str | None = None
    ) -> None:
        if name is not None and name.startswith("--no-"):
            parser.error(f"{name} is not served: {self.metavar}")


def add_always(group: Any, name: str, sentence: str) -> None:
    """A flag that asks for what is always done, whose `--no-` form is refused with the sentence."""
    group.add_argument(
        name,
        "--no-" + name.removeprefix("--"),
        action=_Always,
        nargs=0,
        default=None,
        metavar=sentence,
        help=f"without effect: {sentence}".replace("%", "%%"),
    )


def whole(least: int) -> Any:
    """The type of a flag that is a whole number from `least` up."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"{value} is below {least}")
        return value

    return read


def number(least: float = 0.0, *, above: bool = False) -> Any:
    """The type of a flag that is a number from `least` up, or above it; `inf` is one, `nan` is not."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if not (value > least if above else value >= least):
            raise argparse.ArgumentTypeError(
                f"{text} must be {'above' if above else 'at least'} {least:g}"
            )
        return value

    return read


def read_own(parser: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """The flags of a command that takes none of the engine's. A wrong word exits with 2."""
    flags, rest = _own(parser, argv, engine=False)
    parser.refuse_unknown(rest)
    return flags


def read(parser: Parser, argv: Sequence[str]) -> Words:
    """The command's own flags, and the engine's with the model. A wrong word exits with 2."""
    flags, rest = _own(parser, argv, engine=True)
    options = read_serve(rest, prog=parser.prog)
    server = [name for name in options.given if name not in setting_places()]
    if server:
        named = ", ".join("--" + name.replace("_", "-") for name in server)
        parser.error(f"{named} is for quire serve; there is no server here")
    try:
        engine = EngineArgs(**options.given)
    except SettingsError as error:
        parser.error(str(error))
    return Words(flags, engine, list(options.notes), rest)


def _own(
    parser: Parser, argv: Sequence[str], *, engine: bool
) -> tuple[argparse.Namespace, list[str]]:
    try:
        words = normalise(argv, json_flags())
    except SettingsError as error:
        parser.error(str(error))
    if "-h" in words or "--help" in words:
        print(parser.format_help(), end="")
        if engine:
            print("\nand the model and flags of the engine: quire serve --help lists them")
        parser.exit(0)
    if not engine:
        show_help(parser, argv)
    return parser.parse_known_args(words)
