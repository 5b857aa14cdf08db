"""What `quire chat` and `quire complete` share: their flags, the line typed, the reply shown as it comes.

What is asked of the server is each command's own.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Generator, Sequence

from quire.bench.wire import Delta, ServerFailedError
from quire.cli.remote import Reply, Server
from quire.config import env
from quire.config.cli import Parser

DEFAULT_URL = "http://localhost:8000/v1"

Turn = Callable[[Server, str, str], None]
"""Answers one line: (server, model, line) on the screen. Raises ServerFailedError."""


def parser(prog: str, description: str) -> Parser:
    """A parser with the flags of both commands."""
    made = Parser(
        prog=prog,
        description=description + " Ctrl-C ends a reply, Ctrl-D the program.",
        allow_abbrev=False,
    )
    made.add_argument("--url", default=DEFAULT_URL, help=f"the server; default: {DEFAULT_URL}")
    made.add_argument("--model-name", help="default: the first model that the server lists")
    made.add_argument("--api-key", help="the server's key; default: OPENAI_API_KEY")
    made.add_argument("--max-tokens", type=_positive, help="longest reply, in tokens")
    made.add_argument("-q", "--quick", metavar="TEXT", help="answer this one text, then exit")
    made.add_argument(
        "--stats",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="after each reply: seconds to its first token, and tokens per second",
    )
    return made


def read(made: Parser, argv: Sequence[str]) -> argparse.Namespace:
    """The flags, `_` in their names read as `-`."""
    return made.parse_args([_plain(word) for word in argv])


def _plain(word: str) -> str:
    if not word.startswith("--"):
        return word
    name, equals, value = word.partition("=")
    return name.replace("_", "-") + equals + value


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 up")
    return int(text)


def converse(flags: argparse.Namespace, prog: str, turn: Turn) -> int:
    """Answers the text of --quick, or line after line until the input ends; returns the exit code."""
    try:
        with Server(flags.url, flags.api_key or env.read("OPENAI_API_KEY")) as server:
            model = flags.model_name or server.first_model()
            if flags.quick is not None:
                turn(server, model, flags.quick)
            else:
                _lines(server, model, turn)
        return 0
    except ServerFailedError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print()
        return 130


def _lines(server: Server, model: str, turn: Turn) -> None:
    """One turn for each line. A refusal is shown and the next line is read."""
    is_person = sys.stdin.isatty()
    if is_person:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  # arrows and earlier lines while typing
        print(f"{model} at {server.url}; Ctrl-C ends a reply, Ctrl-D the program.")
    while True:
        try:
            line = input("> " if is_person else "")
        except EOFError:
            if is_person:
                print()
            return
        except KeyboardInterrupt:
            if not is_person:
                raise
            print("  (Ctrl-D ends the program)")
            continue
        line = line.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if not line.strip():
            continue
        try:
            turn(server, model, line)
        except ServerFailedError as error:
            print(f"error: {error}", file=sys.stderr)


def show(pieces: Generator[Delta, None, None], reply: Reply, *, stats: bool) -> bool:
    """Writes a reply as it comes, then a line break; False if Ctrl-C ended it.

    Thinking stands before the answer, dim where the terminal can do that. A failure after some text
    also leaves the line, so that the error stands on its own.
    """
    is_thinking = False
    dim, plain = ("\x1b[2m", "\x1b[0m") if sys.stdout.isatty() else ("", "")
    is_whole = True
    try:
        with contextlib.closing(pieces):
            for delta in pieces:
                if delta.reasoning:
                    sys.stdout.write(("" if is_thinking else dim) + delta.reasoning)
                    is_thinking = True
                if delta.text:
                    sys.stdout.write((f"{plain}\n" if is_thinking else "") + delta.text)
                    is_thinking = False
                sys.stdout.flush()
    except KeyboardInterrupt:
        is_whole = False
    finally:
        if reply.first_s is not None or not is_whole:
            sys.stdout.write((plain if is_thinking else "") + "\n")
            sys.stdout.flush()
    if stats:
        print(f"[{reply.stats()}]", file=sys.stderr)
    return is_whole
