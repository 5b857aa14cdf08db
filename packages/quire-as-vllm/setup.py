"""Refuses to be built where the real vLLM is installed: both would own the package `vllm`.

A wheel that is there already runs no code when it is installed; then the first import refuses.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

from setuptools import setup


def real_vllm() -> Path | None:
    """Where the real vLLM is installed in this interpreter's folders, which a build in isolation names too."""
    for name in ("purelib", "platlib"):
        for info in sorted(Path(sysconfig.get_paths()[name]).glob("vllm-*.dist-info")):
            return info
    return None


found = real_vllm()
if found is not None:
    raise SystemExit(
        f"quire-as-vllm cannot be installed beside vLLM, which is at {found}: both own the package vllm. "
        "Take another environment, or run programs with python -m quire.compat.vllm, which needs no "
        "installation."
    )
setup()
