"""Builds the native kernels: one shared library for each instruction set, with the C++ compiler alone.

Everything else about the package is in pyproject.toml. Without a compiler the package installs too
and computes through torch.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Distribution, Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

SOURCES = Path(__file__).parent / "csrc"
PLACE = Path("quire/ops/cpu/_lib")
COMMON = (
    *("-std=c++17", "-O3", "-fPIC", "-fopenmp", "-fno-exceptions", "-fno-rtti"),
    *("-fvisibility=hidden", "-fwrapv", "-ffp-contract=off", "-fno-math-errno"),
    *("-fno-trapping-math", "-Wall", "-Wextra", "-Wno-psabi", "-Wno-uninitialized"),
    "-Wno-maybe-uninitialized",
)
"""-ffp-contract=off: a product and a sum become one operation only where the source says so."""

VARIANTS = {"portable": ""}
if platform.machine().lower() in ("x86_64", "amd64"):
    VARIANTS = {
        "portable": "-march=x86-64",
        "avx2": "-march=x86-64-v3",
        "avx512": "-march=x86-64-v4 -mavx512vnni -mavx512bf16 -mprefer-vector-width=512",
        "amx": "-march=x86-64-v4 -mavx512vnni -mavx512bf16 -mprefer-vector-width=512 "
        "-mamx-tile -mamx-bf16 -mamx-int8",
    }
    if os.environ.get("QUIRE_EMULATE"):  # for tests: tiles in memory, on processors without AMX
        VARIANTS["amx_emulated"] = VARIANTS["avx512"]
SANITIZE = os.environ.get("QUIRE_SANITIZE", "")
"""For a build with -fsanitize=<this>; such libraries need the sanitizer's runtime preloaded."""


def compile_all(folder: Path, scratch: Path) -> list[Path]:
    """Compiles what has changed since the last time into `folder`; returns the libraries there are."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        warn("there is no C++ compiler (g++, c++ or CXX)")
        return []
    newest = max(path.stat().st_mtime for path in SOURCES.rglob("*.h"))
    newest = max(newest, Path(__file__).stat().st_mtime)
    jobs: list[tuple[list[str], Path]] = []
    objects: dict[str, list[Path]] = {}
    for isa, flags in VARIANTS.items():
        objects[isa] = []
        for source in sorted((SOURCES / "ops").glob("*.cpp")):
            target = scratch / f"{isa}{'-' + SANITIZE if SANITIZE else ''}" / f"{source.stem}.o"
            objects[isa].append(target)
            if target.exists() and target.stat().st_mtime > max(newest, source.stat().st_mtime):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            folders = (SOURCES / "isa" / isa, SOURCES / "include", SOURCES / "ops")
            includes = [f"-I{path}" for path in folders]
            extra = [f"-fsanitize={SANITIZE}", "-g", "-O1"] if SANITIZE else []
            command = [compiler, *COMMON, *flags.split(), *extra, *includes, "-c", str(source)]
            jobs.append(([*command, "-o", str(target)], target))
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        failed = {target for target, good in pool.map(compile_one, jobs) if not good}
    folder.mkdir(parents=True, exist_ok=True)
    built = []
    for isa, parts in objects.items():
        library = folder / f"libquire_{isa}.so"
        if failed.intersection(parts):
            warn(f"the kernels for {isa} do not compile here")
            library.unlink(missing_ok=True)
            continue
        if not library.exists() or library.stat().st_mtime < max(p.stat().st_mtime for p in parts):
            extra = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
            fresh = library.with_suffix(".new")  # a library in use keeps its old file
            link = [compiler, "-shared", "-fopenmp", *extra, *map(str, parts), "-o", str(fresh)]
            subprocess.run(link, check=True)
            fresh.replace(library)
        built.append(library)
    return built


def compile_one(job: tuple[list[str], Path]) -> tuple[Path, bool]:
    """Runs a compiler; prints what it says if it fails."""
    command, target = job
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or done.stderr:
        sys.stderr.write(f"{' '.join(command)}\n{done.stderr}\n")
    return target, done.returncode == 0


def warn(reason: str) -> None:
    """The one warning of an installation without native kernels."""
    sys.stderr.write(f"quire: {reason}: arithmetic will go through torch, which is slower.\n")


class BuildKernels(build_ext):
    """Puts the libraries beside `quire/ops/cpu`, in the wheel or, for an editable install, in the tree."""

    libraries_built: list[Path]

    def run(self) -> None:
        here = self.inplace or self.editable_mode
        folder = Path(__file__).parent / PLACE if here else Path(self.build_lib) / PLACE
        self.libraries_built = compile_all(folder, Path(__file__).parent / "build" / "kernels")

    def get_outputs(self) -> list[str]:
        return [str(path) for path in getattr(self, "libraries_built", [])]

    def get_output_mapping(self) -> dict[str, str]:
        return {}


class AnyPython(bdist_wheel):
    """The libraries know nothing of Python: one wheel for every version of it."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class WithKernels(Distribution):
    """A distribution with something to build though it has no module in C."""

    def has_ext_modules(self) -> bool:
        return True


setup(
    distclass=WithKernels,
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPython},
    ext_modules=[Extension("quire.ops.cpu._lib", sources=[])],
)
