"""`quire`: picks the command. Each command is a file beside this one.

The flags of `serve` are generated in `quire.config.cli`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import quire

_USAGE = """usage: quire COMMAND ...

commands:
  serve [MODEL]   answer HTTP requests; quire serve --help lists its flags
  ops             show every operation and who carries it out

  --version       print the version
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 done, 1 failed, 2 a wrong argument."""
    words = list(sys.argv[1:] if argv is None else argv)
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in ("-v", "--version"):
        print(quire.__version__)
        return 0
    if command in ("-h", "--help"):
        print(_USAGE, end="")
        return 0
    if command == "serve":
        from quire.cli import serve

        return serve.main(rest)
    if command == "ops":
        from quire.cli import ops

        return ops.main(rest)
    print(f"quire: error: unknown command {command!r}; known: serve, ops", file=sys.stderr)
    return 2
