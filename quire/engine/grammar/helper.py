"""A process of its own in which a constraint is compiled before the engine sees it: it can be killed.

Started by `frontend.structured` as `python -m quire.engine.grammar.helper CONFIG`; reads one JSON spec a
line from standard input and writes one JSON answer a line: {} or {"error": sentence}.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from pathlib import Path
from typing import BinaryIO

import msgspec

from quire.engine.grammar.backend import GrammarError
from quire.engine.grammar.compiler import Compiler
from quire.hardware.turns import USUAL_NS, ask_for_turns
from quire.protocol.request import GrammarSpec

_CPU_S = 30  # a helper whose parent is gone does not compute for ever


class HelperConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What a helper is started with. memory_bytes is what a compilation may take on top."""

    backend: str
    tokenizer_file: str
    vocab_size: int
    eos_token_ids: tuple[int, ...]
    memory_bytes: int


def main(arguments: list[str]) -> int:
    """Answers until its input ends. Returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C in the terminal is the parent's matter
    ask_for_turns(USUAL_NS)
    config = msgspec.json.decode(arguments[0], type=HelperConfig)
    compiler = Compiler(
        config.backend,
        config.tokenizer_file,
        config.vocab_size,
        config.eos_token_ids,
        cache_bytes=0,
    )
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not look like an answer
    try:
        compiler.load()
        error = None
    except GrammarError as found:
        error = str(found)
    _limit_memory(config.memory_bytes)
    _send(answers, error)
    for line in sys.stdin.buffer:
        spent = resource.getrusage(resource.RUSAGE_SELF)
        used = int(spent.ru_utime + spent.ru_stime) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used + _CPU_S, resource.RLIM_INFINITY))
        _send(answers, _try(compiler, line))
    return 0


def _try(compiler: Compiler, line: bytes) -> str | None:
    """What is wrong with a spec; None if nothing is."""
    try:
        compiler.compile(msgspec.json.decode(line, type=GrammarSpec))
    except GrammarError as error:
        return str(error)
    except (MemoryError, RecursionError):
        return "it is too complex"
    except Exception as error:  # whatever a grammar engine raises is about this constraint
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


def _send(answers: BinaryIO, error: str | None) -> None:
    answers.write(msgspec.json.encode({} if error is None else {"error": error}) + b"\n")


def _limit_memory(more_bytes: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more_bytes
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
