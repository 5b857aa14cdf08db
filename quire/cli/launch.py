"""`quire launch`: starts a part of a server. The one part there is: `render`, without engine and weights.

The flags are those of `quire serve`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from quire.cli import serve

_USAGE = """usage: quire launch render [MODEL] [flags of quire serve]

parts:
  render   prompts and token ids in both directions: /tokenize, /detokenize, /v1/chat/completions/render,
           /v1/completions/render and their derender routes; no engine, no weights
"""


def main(argv: Sequence[str]) -> int:
    """Starts the part; returns the exit code. A wrong argument exits with 2."""
    words = list(argv)
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE, end="")
        return 0 if words else 2
    if words[0] != "render":
        print(f"quire launch: error: unknown part {words[0]!r}; known: render", file=sys.stderr)
        return 2
    return serve.main([*words[1:], "--render-only"])
