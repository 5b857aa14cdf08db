"""`quire ops`: prints every operation and who carries it out.

The table's text is `quire.ops.report`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="quire ops",
        description="Every operation, its providers in the order in which they are asked, and what it is. "
        "The choices made for a model are printed when quire serve has loaded it.",
    )
    parser.parse_args(list(argv))
    from quire.ops.report import render  # loads torch: a wrong argument should not wait for it

    sys.stdout.write(render() + "\n")
    return 0
