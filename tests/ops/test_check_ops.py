"""The tool that keeps arithmetic in `quire/ops` sees the ways around it; the tree itself passes.

Leaves what an operation computes to the other files of this folder.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tools.check_ops import EXEMPT, check, findings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "line",
    [
        "return torch.softmax(x, -1)",
        "return torch.nn.functional.silu(x)",
        "return x @ y",
        "return x.mul_(2)",
        "return y.view(-1).sum()",
        "return x[0] * 2",
        "x += y",
        "return -x",
        "import torch.nn.functional as F",
        "from torch.nn import functional",
        "from torch import matmul",
        "import torch as t; return t.exp(x)",
    ],
)
def test_arithmetic_is_seen(line: str) -> None:
    source = f"import torch\ndef forward(x: torch.Tensor, y):\n    {line}\n"
    assert [function for function, _ in findings(source)][:1] == ["forward"]


@pytest.mark.parametrize(
    "line",
    [
        "return torch.empty(x.shape[0] * 2, dtype=torch.float32)",
        "return self.norm(x, out=y)",
        "seen.add(x.shape[0] + 1)",
        "return x[: n + 1].view(-1).copy_(y)",
        "return math.sqrt(2)",
    ],
)
def test_other_code_is_let_pass(line: str) -> None:
    source = f"import torch\ndef forward(self, x: torch.Tensor, y, n):\n    {line}\n"
    assert list(findings(source)) == []


def test_findings_are_reported_with_their_place(tmp_path: Path) -> None:
    for entry in EXEMPT:
        file, _, function = entry.partition("::")
        place = tmp_path / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(f"import torch\ndef {function or 'go'}():\n    return torch.exp(1)\n")
    layer = tmp_path / "quire/layers/mlp.py"
    layer.write_text("import torch\ndef go(x):\n    return torch.exp(x)\n")
    (tmp_path / "quire/worker").mkdir()
    (tmp_path / "quire/worker/runner.py").write_text("")
    assert check(tmp_path) == ["quire/layers/mlp.py:3: torch.exp(...) in go"]
    (tmp_path / "quire/layers/rope.py").unlink()
    assert any("there is no such place" in line for line in check(tmp_path))


def test_the_tree_computes_in_ops_only() -> None:
    # Alone in a process: where another thread parses too, CPython 3.11's parser may fail with a SystemError.
    done = subprocess.run(
        [sys.executable, "tools/check_ops.py"], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
