"""Cost of reading a model's output, per token: plain text, arguments of calls, reasoning.

python benchmarks/parsers.py
"""

from __future__ import annotations

import time

from quire.frontend.parsers.reader import make_reader
from quire.protocol.message import ReadOptions

TOKENS = 20_000
CASES = {
    "plain text, no parser": (None, None, "", " word"),
    "plain text": (None, "hermes", "", " word"),
    "plain text behind reasoning": ("qwen3", "hermes", "<think>a</think>", " word"),
    "reasoning": ("qwen3", "hermes", "<think>", " word"),
    "text full of tag beginnings": ("qwen3", "hermes", "", " <b"),
    "JSON arguments": (None, "hermes", '<tool_call>{"name": "f", "arguments": {"a": "', " word"),
    "text arguments": (None, "qwen3_coder", "<function=f>\n<parameter=a>\n", " word"),
}


def main() -> None:
    """Prints microseconds per token for each case, the best of five rounds."""
    for name, (reasoning, tools, start, word) in CASES.items():
        best = float("inf")
        for _ in range(5):
            options = ReadOptions(tool_choice="auto" if tools else "none")
            reader = make_reader(reasoning, tools, options, None)
            reader.feed(start, ())
            started = time.perf_counter()
            for _ in range(TOKENS):
                reader.feed(word, (7,))
            best = min(best, time.perf_counter() - started)
        print(f"{name:32} {best / TOKENS * 1e6:6.2f} µs per token")


if __name__ == "__main__":
    main()
