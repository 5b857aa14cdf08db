"""`quire serve`: starts the engine's process, which begins with its libraries, and then reads the flags.

That and all else is `quire.cli.serving`, whose import takes 0.1 s.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from quire.engine.child import EarlyChild

_WITHOUT_ENGINE = ("-h", "--help", "--render-only", "--render_only")


def main(argv: Sequence[str]) -> int:
    """Serves; returns the exit code. A wrong argument exits with 2."""
    if any(word.startswith(_WITHOUT_ENGINE) for word in argv):
        return _run(argv, None)
    with EarlyChild() as child:
        return _run(argv, child)


def _run(argv: Sequence[str], child: EarlyChild | None) -> int:
    code: int = importlib.import_module("quire.cli.serving").run(argv, child)
    return code
