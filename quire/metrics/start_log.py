"""The lines at start that say what memory may be taken and how many tokens the cache holds.

What the engine does afterwards is `metrics.stats_log`; the ledger itself is computed by `engine.ledger`.
"""

from __future__ import annotations

import logging
import sys

from quire.config import env
from quire.protocol.outputs import EngineInfo


def capacity_lines(info: EngineInfo) -> list[str]:
    """The memory ledger in GiB, a line each, then the cache's tokens and the longest requests it holds."""
    found = [
        f"memory: {name:<24} {num_bytes / 2**30:10.3f} GiB  {note}".rstrip()
        for name, num_bytes, note in info.ledger
    ]
    # The words are those that capacity planners look for in the logs of vLLM.
    found.append(f"GPU KV cache size: {info.capacity_tokens:,} tokens")
    found.append(
        f"Maximum concurrency for {info.max_model_len:,} tokens per request: "
        f"{info.capacity_tokens / info.max_model_len:.2f}x"
    )
    return found


def set_up_log_of_library() -> None:
    """Lets the log of this package reach standard error, at QUIRE_LOG_LEVEL, in a program without a log.

    Does nothing where the program has a handler for it, at the root or at "quire". Raises SettingsError
    for a level that is none.
    """
    own = logging.getLogger("quire")
    if own.hasHandlers():
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    own.addHandler(handler)
    own.setLevel(env.log_level().upper())
    own.propagate = False  # a root handler that the program adds later would write the lines again
