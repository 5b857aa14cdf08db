"""What vLLM's programs do when they are run: each is one of our commands, with the same words.

`python -m vllm.entrypoints.openai.api_server` is `quire serve`, and so on.
"""

from __future__ import annotations

import importlib
import sys


def vllm() -> int:
    """The command `vllm`: `quire`."""
    return _command("quire.cli.main", sys.argv[1:])


def api_server() -> int:
    """`quire serve`."""
    return _command("quire.cli.serve", sys.argv[1:])


def server_benchmark() -> int:
    """`quire bench serve`, which is what this program became."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        print("this program is now `quire bench serve`; its flags:\n")
    return _command("quire.cli.bench", ["serve", *sys.argv[1:]])


def run_batch() -> int:
    """`quire run-batch`."""
    return _command("quire.cli.run_batch", sys.argv[1:])


def collect_env() -> int:
    """`quire collect-env`."""
    return _command("quire.cli.collect_env", sys.argv[1:])


def demo_server() -> int:
    """A server with POST /generate beside everything that `quire serve` has."""
    return _command("quire.compat.vllm.demo_server", sys.argv[1:])


def _command(module: str, words: list[str]) -> int:
    code: int = importlib.import_module(module).main(words)
    return code
