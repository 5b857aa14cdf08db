"""`quire collect-env`: what this machine and installation are, as text for a report of a fault.

Secrets never appear: `quire.config.env` hides them.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import quire
from quire.config import env
from quire.hardware.cpu import read_machine

_LIBRARIES = (
    "torch", "numpy", "safetensors", "tokenizers", "transformers", "huggingface-hub", "msgspec", "pyzmq",
    "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "httpx", "jinja2", "prometheus-client",
    "openai", "triton", "ray",
)  # fmt: skip

Section = tuple[str, list[tuple[str, str]]]


def main(argv: Sequence[str]) -> int:
    """Prints the report; returns 0."""
    parser = argparse.ArgumentParser(
        prog="quire collect-env",
        description="Describes this machine and installation for a report of a fault: system, Python, torch, "
        "processor, GPUs, library versions, environment variables. Secrets are hidden; read it before "
        "you send it.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    flags = parser.parse_args(list(argv))
    sections = report()
    if flags.json:
        print(json.dumps({title: dict(rows) for title, rows in sections}, indent=2))
        return 0
    for title, rows in sections:
        print(f"{title}\n{'-' * len(title)}")
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            print(f"{name:{width}}  {value}".rstrip())
        print()
    return 0


def report() -> list[Section]:
    """(title, rows of name and value) of each section."""
    return [
        ("System", _system()),
        ("Python", _python()),
        ("Machine", read_machine().describe()),
        ("Torch", _torch()),
        ("Libraries", [(name, _version(name)) for name in _LIBRARIES]),
        (
            "Environment",
            list(env.reported().items()) or [("(none)", "no variable that bears on a run")],
        ),
    ]


def _system() -> list[tuple[str, str]]:
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        name = platform.system()
    libc = " ".join(platform.libc_ver()).strip()
    container = any(Path(mark).exists() for mark in ("/.dockerenv", "/run/.containerenv"))
    return [
        ("quire", quire.__version__),
        ("os", name),
        ("kernel", platform.release()),
        ("libc", libc or "unknown"),
        ("container", "yes" if container else "no sign of one"),
    ]


def _python() -> list[tuple[str, str]]:
    threads = os.cpu_count() or 1
    return [
        ("version", sys.version.replace("\n", " ")),
        ("executable", sys.executable),
        ("virtual environment", "yes" if sys.prefix != sys.base_prefix else "no"),
        ("quire is at", str(Path(quire.__file__).parent)),
        ("logical processors of the machine", str(threads)),
    ]


def _torch() -> list[tuple[str, str]]:
    try:
        import torch
    except Exception as error:  # a broken installation is just what such a report is for
        return [("import", f"failed: {type(error).__name__}: {error}")]
    cuda = torch.version.cuda or "built without"
    return [
        ("version", str(torch.__version__)),
        ("cuda", f"{cuda}, {'usable' if torch.cuda.is_available() else 'not usable'} here"),
        ("threads", str(torch.get_num_threads())),
        ("cpu capability", str(torch.backends.cpu.get_cpu_capability())),
        ("mkldnn", "yes" if torch.backends.mkldnn.is_available() else "no"),  # type: ignore[no-untyped-call]
    ]


def _version(library: str) -> str:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
