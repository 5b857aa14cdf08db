"""The distribution that is called vllm: installed into an environment of its own, and refused beside the real one."""

from __future__ import annotations

import shutil
import subprocess
import venv
from pathlib import Path

import pytest

import quire

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "packages/quire-as-vllm"

pytestmark = pytest.mark.slow


def in_environment(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(folder / "bin" / words[0]), *words[1:]],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )


def install(folder: Path) -> subprocess.CompletedProcess[str]:
    """Builds without reaching for an index: setuptools is the one of this environment."""
    source = folder.parent / "source"  # a build leaves folders beside what it builds
    shutil.copytree(PACKAGE, source, dirs_exist_ok=True)
    words = ("install", "--no-deps", "--no-build-isolation", "--no-index", str(source))
    return in_environment(folder, "python", "-m", "pip", *words)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A new environment that sees Quire and its libraries."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for old in site.glob("setuptools*"):  # the one of our libraries is wanted
        shutil.rmtree(old)
    libraries = Path(pytest.__file__).parents[1]
    (site / "seen.pth").write_text(f"{ROOT}\n{libraries}\n")
    return folder


def test_it_is_vllm_until_the_real_one_comes(environment: Path) -> None:
    done = install(environment)
    if "No module named 'setuptools'" in done.stderr or "Cannot import 'setuptools" in done.stderr:
        pytest.skip("setuptools is not installed here, so nothing can be built")
    assert done.returncode == 0, done.stderr
    code = (
        "import vllm; from vllm.sampling_params import SamplingParams; from vllm import LLM; "
        "print(vllm.__file__, SamplingParams.__module__, LLM.__name__)"
    )
    shown = in_environment(environment, "python", "-c", code)
    assert "quire.protocol.params LLM" in shown.stdout and "environment" in shown.stdout, (
        shown.stderr
    )
    assert in_environment(environment, "vllm", "--version").stdout.strip() == quire.__version__
    served = in_environment(
        environment, "python", "-m", "vllm.entrypoints.openai.api_server", "--port", "-5"
    )
    assert served.returncode == 2 and "--port" in served.stderr

    site = next(environment.glob("lib/python*/site-packages"))
    info = site / "vllm-0.31.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.31.0\n")
    for words in (("vllm", "--version"), ("python", "-c", "import vllm")):
        refused = in_environment(environment, *words)
        assert refused.returncode != 0 and "both own the package vllm" in refused.stderr
    again = install(environment)
    assert (
        again.returncode != 0 and "cannot be installed beside vLLM" in again.stderr + again.stdout
    )
