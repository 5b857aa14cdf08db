"""Fails where the running model does arithmetic past the table of operations.

Reads quire/models, quire/layers and quire/worker/runner.py as syntax trees and looks for calls of torch
functions, torch.nn.functional, `@`, arithmetic methods of tensors, and operators on names annotated as
tensors. What runs only while loading is listed in EXEMPT with its reason. Other habits of torch code are
left to review.

Usage: python tools/check_ops.py [repository]
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PLACES = ("quire/models", "quire/layers", "quire/worker/runner.py")

ALLOWED_CALLS = frozenset(
    (
        "arange",
        "as_tensor",
        "device",
        "dtype",
        "empty",
        "empty_like",
        "from_numpy",
        "frombuffer",
        "full",
        "get_num_threads",
        "inference_mode",
        "is_tensor",
        "no_grad",
        "ones",
        "set_num_threads",
        "tensor",
        "zeros",
        "zeros_like",
    )
)
"""torch.<name>(...) that makes or describes tensors and computes nothing."""

ARITHMETIC = frozenset(
    (
        "abs",
        "add",
        "addmm",
        "amax",
        "argmax",
        "baddbmm",
        "bmm",
        "clamp",
        "cos",
        "cumsum",
        "div",
        "einsum",
        "erf",
        "exp",
        "gelu",
        "index_add",
        "log",
        "log_softmax",
        "logsumexp",
        "masked_fill",
        "matmul",
        "mean",
        "mm",
        "mul",
        "neg",
        "norm",
        "pow",
        "reciprocal",
        "relu",
        "rsqrt",
        "scatter",
        "sigmoid",
        "silu",
        "sin",
        "softmax",
        "sqrt",
        "sub",
        "sum",
        "tanh",
        "topk",
        "tril",
        "triu",
        "where",
    )
)
"""Methods that compute, in place (with a final underscore) or not."""

OTHER_MEANINGS = frozenset(("add", "log", "norm", "sub"))
"""Without the underscore these are as often methods of sets, loggers, layers and patterns."""

EXEMPT: dict[str, str] = {
    "quire/models/loading": "weights are cut, stacked and folded once, before the first step",
    "quire/models/foreign/parts.py": "a module is tried out in a process of its own, before loading",
    "quire/models/foreign/decoder.py::_make_tables": "tables of positions are made once, at load",
    "quire/models/foreign/helper.py": "makes the model in a process of its own, before loading",
    "quire/models/foreign/trace.py": "names functions of torch that are replaced",
    "quire/layers/rope.py": "the table of cosines and sines is made once, at load",
}
"""File, folder, or file::function, relative to the repository -> why it may compute."""

Finding = tuple[int, str]


def findings(source: str) -> Iterator[tuple[str, Finding]]:
    """(function name, (line, what)) for each piece of tensor arithmetic in a file's text."""
    tree = ast.parse(source)
    aliases = _aliases(tree)
    for function, node in _with_functions(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((function, found) for found in _imports(node))
        elif isinstance(node, ast.Call):
            yield from ((function, found) for found in _calls(node, aliases))
        elif isinstance(node, (ast.BinOp, ast.AugAssign)) and isinstance(node.op, ast.MatMult):
            yield function, (node.lineno, "the operator @")
    for definition in ast.walk(tree):
        if isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for found in _operators(definition):
                yield definition.name, found


def _aliases(tree: ast.AST) -> frozenset[str]:
    """The names under which the file knows torch itself."""
    return frozenset(
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for name in node.names
        if name.name == "torch"
    )


def _with_functions(tree: ast.AST, inside: str = "") -> Iterator[tuple[str, ast.AST]]:
    """Every node with the name of the innermost function around it."""
    for node in ast.iter_child_nodes(tree):
        yield inside, node
        is_function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        yield from _with_functions(node, node.name if is_function else inside)  # type: ignore[attr-defined]


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[Finding]:
    if isinstance(node, ast.Import):
        modules = [name.name for name in node.names]
    else:
        modules = [f"{node.module}.{name.name}" for name in node.names]
    for module in modules:
        if module.startswith(("torch.nn.functional", "torch.special", "torch.linalg", "torch.fft")):
            yield node.lineno, f"import of {module}"
        elif module.startswith("torch.") and isinstance(node, ast.ImportFrom):
            name = module.removeprefix("torch.")
            if name.islower() and name in ARITHMETIC:
                yield node.lineno, f"import of {module}"


def _calls(node: ast.Call, aliases: frozenset[str]) -> Iterator[Finding]:
    if not isinstance(node.func, ast.Attribute):
        return
    path = _dotted(node.func)
    if path and path[0] in aliases:
        name = path[1]
        if len(path) > 2 and name in ("nn", "special", "linalg", "fft", "ops"):
            yield node.lineno, f"{'.'.join(path)}(...)"
        elif len(path) == 2 and name.islower() and name not in ALLOWED_CALLS:
            yield node.lineno, f"torch.{name}(...)"
    elif (
        node.func.attr.rstrip("_") in ARITHMETIC
        and node.func.attr not in OTHER_MEANINGS
        and not (path and path[0] in ("np", "math"))
    ):
        yield node.lineno, f".{node.func.attr}(...)"


def _dotted(node: ast.expr) -> list[str]:
    """a.b.c as its names, or nothing if it does not start with a name."""
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, node.attr)
        node = node.value
    return [node.id, *names] if isinstance(node, ast.Name) else []


def _operators(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[Finding]:
    """Arithmetic whose operand is a name annotated as a tensor, or part of one."""
    every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    tensors = {arg.arg for arg in every if _is_tensor(arg.annotation)}
    for node in ast.walk(function):
        if isinstance(node, ast.AnnAssign) and _is_tensor(node.annotation):
            tensors.update(_dotted(node.target)[:1])
    for node in ast.walk(function):
        if isinstance(node, ast.BinOp):
            operands = [node.left, node.right]
        elif isinstance(node, ast.AugAssign):
            operands = [node.target, node.value]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            operands = [node.operand]
        else:
            continue
        for operand in operands:
            while isinstance(operand, ast.Subscript):
                operand = operand.value
            if isinstance(operand, ast.Name) and operand.id in tensors:
                yield node.lineno, f"arithmetic on the tensor {operand.id}"
                break


def _is_tensor(annotation: ast.expr | None) -> bool:
    return annotation is not None and ast.unparse(annotation) in (
        "torch.Tensor",
        "torch.Tensor | None",
        "Tensor",
    )


def check(root: Path) -> list[str]:
    """One line for each finding outside of EXEMPT, and for each exemption that no longer exists."""
    lines = []
    for path in sorted(path for place in PLACES for path in _files(root / place)):
        name = path.relative_to(root).as_posix()
        if any(name == entry or name.startswith(f"{entry}/") for entry in EXEMPT):
            continue
        for function, (line, what) in findings(path.read_text()):
            if f"{name}::{function}" not in EXEMPT:
                lines.append(f"{name}:{line}: {what} in {function or 'the module'}")
    for entry in EXEMPT:
        if not (root / entry.split("::")[0]).exists():
            lines.append(f"{entry}: exempt in tools/check_ops.py, but there is no such place")
    return sorted(set(lines))


def _files(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


def main() -> int:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    lines = check(root)
    for line in lines:
        print(line)
    if lines:
        print(f"{len(lines)} places compute past the table of operations (quire/ops)")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
