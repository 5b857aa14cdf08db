"""The command `vllm`, and the check that the real one is not installed beside it."""

from __future__ import annotations

import importlib.metadata


def refuse_beside_vllm() -> None:
    """Raises ImportError if the real vLLM is installed in this environment."""
    try:
        version = importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return
    raise ImportError(
        f"vLLM {version} is installed beside quire-as-vllm, and both own the package vllm; remove one of "
        "them: pip uninstall quire-as-vllm (then install vLLM again), or pip uninstall vllm"
    )


def main() -> int:
    """`vllm ...` is `quire ...`. Returns the exit code."""
    refuse_beside_vllm()
    from quire.compat.vllm.commands import vllm

    return vllm()
