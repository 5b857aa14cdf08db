"""`python -m benchmarks.peers run|setup ...`: the two commands of the comparison.

What they do is in `run` and `setup`.
"""

from __future__ import annotations

import sys

from benchmarks.peers import run, setup

COMMANDS = {"run": run.main, "setup": setup.main}


def main(words: list[str]) -> int:
    """Runs the command that is named first; 2 with a line of help if there is none."""
    if not words or words[0] not in COMMANDS:
        print(f"usage: python -m benchmarks.peers {{{'|'.join(COMMANDS)}}} ...", file=sys.stderr)
        return 2
    return COMMANDS[words[0]](words[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
