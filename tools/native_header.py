"""Writes the C header of argument structs from the table in `quire.ops.cpu.structs`.

Run as `python tools/native_header.py`; with --check it only says whether the file is current.
"""

from __future__ import annotations

import sys
from pathlib import Path

from quire.ops.cpu.structs import header

HEADER = Path(__file__).parent.parent / "csrc" / "include" / "quire_ops.h"


def main(argv: list[str]) -> int:
    """Returns the exit code."""
    text = header()
    if "--check" in argv:
        if HEADER.read_text() == text:
            return 0
        sys.stderr.write(f"{HEADER} is not current; run: python tools/native_header.py\n")
        return 1
    HEADER.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
