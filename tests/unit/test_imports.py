"""What importing a part loads, each in a fresh interpreter; the contracts between folders are import-linter's."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "triton")

FRONTEND = sorted(
    module.name
    for module in pkgutil.walk_packages([str(ROOT / "quire/frontend")], "quire.frontend.")
    if not module.ispkg
)
LIGHT = [
    "quire",
    "quire.engine.scheduler.scheduler",
    "quire.engine.kvcache.manager",
    "quire.engine.client",
    "quire.engine.resolve",
    "quire.models.registry",
    "quire.models.loading.headers",
    "quire.quant.formats",
    "quire.async_llm",
    "quire.server.app",
    "quire.cli.main",
]


def loaded_by(code: str) -> set[str]:
    """The heavy modules that are loaded after `code` has run in a new interpreter."""
    report = f"import sys; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("module", LIGHT)
def test_loads_nothing_heavy(module: str) -> None:
    assert loaded_by(f"import {module}") == set()


def test_the_front_loads_nothing_heavy() -> None:
    assert FRONTEND, "no module of quire.frontend was found"
    assert loaded_by("; ".join(f"import {module}" for module in FRONTEND)) == set()


def test_public_names_are_lazy_and_there() -> None:
    names = "import quire; missing = [n for n in quire.__all__ if not hasattr(quire, n)]; assert not missing, missing"
    subprocess.run([sys.executable, "-c", names], cwd=ROOT, check=True, timeout=60)


def test_this_test_can_see_torch() -> None:
    assert "torch" in loaded_by("import quire.ops.norm")


SOURCES = {path: path.read_text() for path in sorted((ROOT / "quire").rglob("*.py"))}


def test_only_one_file_reads_the_environment() -> None:
    readers = {
        path.relative_to(ROOT).as_posix()
        for path, text in SOURCES.items()
        if "os.environ" in text or "os.getenv" in text
    }
    assert readers == {"quire/config/env.py"}


def test_packages_are_empty_but_the_top_one() -> None:
    filled = {p for p, text in SOURCES.items() if p.name == "__init__.py" and text.strip()}
    assert filled == {ROOT / "quire/__init__.py"}


def test_a_start_waits_for_no_client_of_http() -> None:
    code = "import sys, quire.server.launch, quire.async_llm; assert 'httpx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_torch_without_shape_functions_computes_and_can_be_made_whole() -> None:
    code = """
import sys
from quire.hardware.torch_import import import_lean
import_lean()
import torch
assert not {"torch._meta_registrations", "torch._decomp", "torch._prims"} & set(sys.modules)
assert not hasattr(torch, "_meta_registrations")
drawn = torch.rand(3, generator=torch.Generator().manual_seed(0))
import torch._meta_registrations
torch.manual_seed(0)
assert torch.equal(torch.rand(3), drawn)
assert torch.linalg.cholesky(torch.empty(3, 3, device="meta")).shape == (3, 3)
assert torch.compile(lambda x: x + 1, backend="eager")(drawn).shape == (3,)
"""
    assert loaded_by(code) == {"torch"}


def test_what_an_engine_imports_while_a_thread_binds_torch_waits_for_no_shared_library() -> None:
    code = """
import importlib.machinery
from quire.hardware.torch_libraries import _import_first
_import_first()
found = importlib.machinery.ExtensionFileLoader.create_module
late = []
importlib.machinery.ExtensionFileLoader.create_module = lambda self, spec: late.append(spec.name) or found(self, spec)
import quire.engine.loop
assert not late, late
"""
    assert loaded_by(code) == set()


def test_torch_is_whole_when_its_libraries_were_loaded_before() -> None:
    code = """
import threading
from quire.hardware.torch_import import import_lean
from quire.hardware.torch_libraries import load_ahead
load_ahead()
import_lean()
import torch
assert torch.equal(torch.ones(3, 4) @ torch.ones(4, 2), torch.full((3, 2), 4.0))
load_ahead()
assert [thread for thread in threading.enumerate() if thread.name == "quire-libraries"] == []
"""
    assert loaded_by(code) == {"torch"}
