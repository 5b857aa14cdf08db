"""`quire bench KIND`: picks the measurement, and turns its errors into a line and an exit code.

The measurements are `quire.bench`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from quire.bench.wire import ServerFailedError
from quire.protocol.errors import EngineDeadError, QuireError, RequestFailedError

_KINDS = {
    "latency": "seconds of one batch, in this process",
    "throughput": "requests and tokens a second, in this process; against Transformers too",
    "serve": "times of requests that arrive at a running server",
    "ops": "bytes and operations a second of single operations",
    "startup": "seconds until a server is ready and has made its first token",
}

_NOT_THERE = {
    "sweep": "run `quire bench serve` once for each setting",
    "mm-processor": "there are no images, audio or video to process",
}


def main(argv: Sequence[str]) -> int:
    """Runs a measurement; returns its exit code: 0 done, 1 failed, 2 a wrong argument."""
    kind, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if kind in ("-h", "--help"):
        lines = [f"  {name:11} {what}" for name, what in _KINDS.items()]
        print("\n".join(["usage: quire bench KIND ...", "", "kinds:", *lines]))
        print("\n  quire bench KIND --help   the flags of a kind")
        return 0
    if kind in _NOT_THERE:
        print(f"quire bench: error: {kind} is not served: {_NOT_THERE[kind]}", file=sys.stderr)
        return 2
    if kind not in _KINDS:
        print(
            f"quire bench: error: unknown kind {kind!r}; known: {', '.join(_KINDS)}",
            file=sys.stderr,
        )
        return 2
    try:
        code: int = importlib.import_module(f"quire.bench.{kind}").main(rest)
        return code
    except QuireError as error:
        print(f"quire bench {kind}: error: {error}", file=sys.stderr)
        failed = isinstance(error, (EngineDeadError, RequestFailedError, ServerFailedError))
        return 1 if failed else 2
    except KeyboardInterrupt:
        return 130
