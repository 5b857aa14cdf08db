"""Fails when something public is undocumented or docs/map.md and the tree disagree.

It reads source without importing it, the settings excepted; whether a sentence is true is for readers.
"""

from __future__ import annotations

import ast
import dataclasses
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_type_hints

ROOT = Path(__file__).resolve().parent.parent
MAP = "docs/map.md"
_TOP_FOLDERS = ("quire/", "tests/", "docs/", "benchmarks/", "examples/", "tools/", ".ci/")
_SHAPE = re.compile(r" \[[^\]]+\]|of any shape|of one shape|'s shape")


def public_names(
    tree: ast.Module,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Functions and classes of a module whose names do not start with an underscore."""
    for node in tree.body:
        is_named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        if is_named and not node.name.startswith("_"):
            yield node


def check_docstrings(path: str, tree: ast.Module) -> list[str]:
    """Complaints about a module, or its public names, without a docstring. Providers are ops' business."""
    complaints = []
    if tree.body and not ast.get_docstring(tree):
        complaints.append(f"{path}: no docstring that says what the file is for")
    for node in public_names(tree):
        if not ast.get_docstring(node) and not _is_registered(node):
            complaints.append(f"{path}:{node.lineno}: {node.name} has no docstring")
    return complaints


def check_ops(trees: dict[str, ast.Module]) -> list[str]:
    """Complaints about operations without a reference, or without shapes in declaration and reference."""
    places: dict[str, str] = {}
    texts: dict[str, str] = {}
    referenced: set[str] = set()
    nodes = [node for tree in trees.values() for node in ast.walk(tree)]
    classes = {node.name: node for node in nodes if isinstance(node, ast.ClassDef)}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and _is_declaration(node):
                name, *rest = [a.value for a in node.args if isinstance(a, ast.Constant)]
                places[str(name)] = f"{path}:{node.lineno}"
                texts[str(name)] = texts.get(str(name), "") + " ".join(map(str, rest))
            elif isinstance(node, ast.ClassDef) and _is_registered(node):
                values = _class_strings(node, classes)
                op = values.get("op", "")
                if values.get("name") == "reference":
                    referenced.add(op)
                    runs = [n for n in node.body if getattr(n, "name", None) == "run"]
                    docs = [ast.get_docstring(n) or "" for n in [node, *runs]]  # type: ignore[arg-type]
                    texts[op] = texts.get(op, "") + " ".join(docs)
    complaints = [
        f"{place}: operation {name} states no shapes, neither where declared nor in its reference"
        for name, place in places.items()
        if not _SHAPE.search(texts[name])
    ]
    missing = sorted(set(places) - referenced)
    return complaints + [f"{places[name]}: {name} has no reference provider" for name in missing]


def _is_registered(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(isinstance(d, ast.Name) and d.id == "register" for d in decorators)


def _is_declaration(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == "declare" and bool(node.args)


def _class_strings(node: ast.ClassDef, classes: dict[str, ast.ClassDef]) -> dict[str, str]:
    """Class attributes that are plain strings, those of known bases included."""
    found: dict[str, str] = {}
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in classes:
            found |= _class_strings(classes[base.id], classes)
    for item in node.body:
        if isinstance(item, ast.Assign) and isinstance(item.value, ast.Constant):
            for target in item.targets:
                if isinstance(target, ast.Name) and isinstance(item.value.value, str):
                    found[target.id] = item.value.value
    return found


def check_settings() -> list[str]:
    """Complaints about settings without a help line."""
    sys.path.insert(0, str(ROOT))
    from quire.config import schema, server

    leaves = {*get_type_hints(schema.Settings).values(), server.ServerConfig}
    return [
        f"{leaf.__module__.replace('.', '/')}.py: {leaf.__name__}.{one.name} has no help"
        for leaf in sorted(leaves, key=lambda leaf: str(leaf.__name__))
        for one in dataclasses.fields(leaf)
        if not one.metadata.get("help")
    ]


def check_map(text: str, modules: list[str]) -> list[str]:
    """Complaints about paths of the map that are not there, and folders of quire/ that it does not name."""
    named = {word for word in re.findall(r"`([^`\s]+)`", text) if word.startswith(_TOP_FOLDERS)}
    complaints = [
        f"{MAP}: names {word}, which is not there"
        for word in sorted(named)
        if not (any(ROOT.glob(word)) if "*" in word else (ROOT / word).exists())
    ]
    folders = {path.rpartition("/")[0] + "/" for path in modules}
    complaints += [f"{MAP}: does not name {folder}" for folder in sorted(folders - named)]
    return complaints


def main() -> int:
    """Prints every complaint; 1 if there is one."""
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for path in sorted((ROOT / "quire").rglob("*.py"))
    }
    trees = {path: ast.parse(text) for path, text in sources.items()}
    complaints = []
    for path, tree in trees.items():
        complaints += check_docstrings(path, tree)
    complaints += check_ops({p: t for p, t in trees.items() if p.startswith("quire/ops/")})
    complaints += check_settings()
    complaints += check_map(
        (ROOT / MAP).read_text(), [path for path, text in sources.items() if text.strip()]
    )
    print(
        "\n".join(complaints)
        or f"docs: {len(sources)} files, the settings and the map are in order"
    )
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
