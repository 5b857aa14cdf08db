"""Fails when a file or a function of quire/, or a file of csrc/, is longer than its folder allows.

Caps are lines, comments and docstrings included; what the code is like inside is the linters' business.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_FILE_CAP = 400
FUNCTION_CAP = 60
NATIVE_FILE_CAP = 600

FOLDER_CAPS = {
    "cli": 300,
    "server": 350,
    "sampling": 300,
    "quant": 300,
    "distributed": 300,
    "ops": 500,
    "kv_transfer": 300,
    "bench": 300,
    "protocol": 200,
    "config": 300,
    "hardware": 250,
    "metrics": 250,
    "utils": 150,
}

FILE_CAPS: dict[str, tuple[int, str]] = {
    "quire/engine/scheduler/scheduler.py": (
        500,
        "one decision in one place; the folder's hard cap",
    ),
    "quire/protocol/params.py": (400, "all fields of one public class, each with its check"),
}
"""Files with a cap of their own, and why. A line that is no longer needed fails the check too."""

FUNCTION_CAPS: dict[str, tuple[int, str]] = {}
"""`path::name` of functions with a cap of their own, and why."""


def cap_of(path: str) -> int:
    """The cap of a file, its path relative to the root."""
    if path in FILE_CAPS:
        return FILE_CAPS[path][0]
    parts = path.split("/")
    return FOLDER_CAPS.get(parts[1], DEFAULT_FILE_CAP)


def check_file(path: str, text: str) -> list[str]:
    """Complaints about one file."""
    complaints = []
    num_lines = len(text.splitlines())
    cap = cap_of(path)
    if num_lines > cap:
        complaints.append(f"{path}: {num_lines} lines, {cap} allowed; split it by what it is for")
    if path in FILE_CAPS and num_lines <= cap_without_exception(path):
        complaints.append(f"{path}: {num_lines} lines; its line in FILE_CAPS can go")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            allowed = FUNCTION_CAPS.get(f"{path}::{node.name}", (FUNCTION_CAP, ""))[0]
            if length > allowed:
                complaints.append(
                    f"{path}:{node.lineno}: {node.name} has {length} lines, {allowed} allowed"
                )
    return complaints


def cap_without_exception(path: str) -> int:
    """What the folder alone allows."""
    return FOLDER_CAPS.get(path.split("/")[1], DEFAULT_FILE_CAP)


def main() -> int:
    """Prints every complaint; 1 if there is one."""
    complaints = []
    paths = sorted((ROOT / "quire").rglob("*.py"))
    for path in paths:
        complaints += check_file(path.relative_to(ROOT).as_posix(), path.read_text())
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.suffix in (".h", ".cpp")]
    for path in sorted(sources):
        num_lines = len(path.read_text().splitlines())
        if num_lines > NATIVE_FILE_CAP:
            complaints.append(f"{path}: {num_lines} lines, {NATIVE_FILE_CAP} allowed")
    known = {path.relative_to(ROOT).as_posix() for path in paths}
    named = {*FILE_CAPS, *(name.partition("::")[0] for name in FUNCTION_CAPS)}
    complaints += [
        f"{path}: named in check_sizes.py, but not there" for path in sorted(named - known)
    ]
    print("\n".join(complaints) or f"sizes: {len(paths) + len(sources)} files within their caps")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
