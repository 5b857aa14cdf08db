"""Prints how much of the family files is told twice: code lines that stand in another of them too.

Imports, comments, docstrings and lines of brackets only are no code lines. Two shares are printed, both of all code
lines. The first, which has a limit, counts recurring lines of 25 characters or more: those that can hold a statement.
The second counts recurring lines of any length; it has no limit, for most of the short ones are single arguments
(`hf,`, `bias=None,`) that the formatter put on lines of their own.
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
    return [line for line in found if line.strip("()[]{}, ") and not line.startswith("#")]


def repeated(files: dict[str, str], shortest: int = _SHORT) -> tuple[float, list[tuple[int, str]]]:
    """The share of lines that stand in another file too, and those lines with the number of files.

    shortest  characters of a line that can count as told twice.
    """
    lines = {name: code_lines(text) for name, text in files.items()}
    places: dict[str, set[str]] = defaultdict(set)
    for name, found in lines.items():
        for line in found:
            places[line].add(name)
    twice = {
        line: len(names)
        for line, names in places.items()
        if len(names) > 1 and len(line) >= shortest
    }
    total = sum(map(len, lines.values()))
    count = sum(line in twice for found in lines.values() for line in found)
    return count / total, sorted(((number, line) for line, number in twice.items()), reverse=True)


def main() -> int:
    """Prints the share and the lines that recur most; 1 if it is over the limit."""
    files = {path.name: path.read_text() for path in FOLDER.glob("*.py")}
    share, lines = repeated(files)
    literal, _ = repeated(files, shortest=1)
    print(
        f"of all code lines of family files, those that stand in another one too: "
        f"{share:.1%} with {_SHORT} characters or more (limit {LIMIT:.0%}), {literal:.1%} of any length"
    )
    if share < LIMIT:
        return 0
    print("\n".join(f"{number:3}  {line}" for number, line in lines[:20]))
    return 1


if __name__ == "__main__":
    sys.exit(main())
