"""`quire`: picks the command. Each command is a file beside this one.

The flags of `serve` are generated in `quire.config.cli`.
"""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Sequence

import quire

_COMMANDS = {
    "serve": ("quire.cli.serve", "answer HTTP requests"),
    "chat": ("quire.cli.chat", "talk to a running server"),
    "complete": ("quire.cli.complete", "let a running server continue texts"),
    "run-batch": ("quire.cli.run_batch", "answer the requests of a file, without a server"),
    "launch": ("quire.cli.launch", "start a part of a server: render"),
    "bench": ("quire.cli.bench", "measure: latency, throughput, serve, startup"),
    "models": ("quire.cli.models", "list the architectures, or say what a checkpoint is"),
    "verify": ("quire.cli.verify", "compare a checkpoint with Transformers, layer by layer"),
    "ops": ("quire.cli.ops", "show every operation and who carries it out"),
    "collect-env": ("quire.cli.collect_env", "describe this machine and installation"),
}
"""Command -> its module, loaded when it is used, and what it does."""


_WORDS = {
    "serve": " [MODEL]",
    "ops": " [MODEL]",
    "models": " [FOLDER]",
    "verify": " MODEL",
    "bench": " KIND",
    "launch": " render [MODEL]",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code: 0 done, 1 failed, 2 a wrong argument."""
    words = list(sys.argv[1:] if argv is None else argv)
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in ("-v", "--version"):
        print(quire.__version__)
        return 0
    if command in ("-h", "--help"):
        print(_usage(), end="")
        return 0
    if command not in _COMMANDS:
        known = ", ".join(_COMMANDS)
        print(f"quire: error: unknown command {command!r}; known: {known}", file=sys.stderr)
        return 2
    if command == "serve":
        gc.disable()  # a tenth of a start was its passes; `server.steady` lets it work again
    try:
        code: int = importlib.import_module(_COMMANDS[command][0]).main(rest)
        return code
    finally:
        gc.enable()


def _usage() -> str:
    lines = ["usage: quire COMMAND ...", "", "commands:"]
    lines += [f"  {name + _WORDS.get(name, ''):16} {what}" for name, (_, what) in _COMMANDS.items()]
    lines += [
        "",
        "  quire COMMAND --help   the flags of a command",
        "  quire --version        print the version",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
