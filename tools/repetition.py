"""Prints how much of the family files is told twice: code lines that stand in another of them too.

Imports, comments and docstrings are no code lines. Lines shorter than a statement, such as a bracket or one
argument of a call, are code but never count as told twice.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "quire" / "models" / "architectures"
LIMIT = 0.10
_SHORT = 25  # characters


def code_lines(text: str) -> list[str]:
    """The code lines of a file without their indentation."""
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_text or isinstance(node, ast.Import | ast.ImportFrom):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))  # type: ignore[attr-defined]
    lines = enumerate(text.splitlines(), 1)
    found = [line.strip() for number, line in lines if number not in skipped]
    return [line for line in found if line and not line.startswith("#")]


def repeated(files: dict[str, str]) -> tuple[float, list[tuple[int, str]]]:
    """The share of lines that stand in another file too, and those lines with the number of files."""
    lines = {name: code_lines(text) for name, text in files.items()}
    places: dict[str, set[str]] = defaultdict(set)
    for name, found in lines.items():
        for line in found:
            places[line].add(name)
    twice = {
        line: len(names) for line, names in places.items() if len(names) > 1 and len(line) >= _SHORT
    }
    total = sum(map(len, lines.values()))
    count = sum(line in twice for found in lines.values() for line in found)
    return count / total, sorted(((number, line) for line, number in twice.items()), reverse=True)


def main() -> int:
    """Prints the share and the lines that recur most; 1 if it is over the limit."""
    share, lines = repeated({path.name: path.read_text() for path in FOLDER.glob("*.py")})
    print(f"{share:.1%} of the code lines of family files stand in another one too")
    if share < LIMIT:
        return 0
    print("\n".join(f"{number:3}  {line}" for number, line in lines[:20]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
