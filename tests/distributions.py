"""Distributions of one module, as an installer would leave them in a folder of packages."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, module: str, code: str, points: str) -> Path:
    """Writes a module and what its distribution says of entry points; returns the folder, for sys.path."""
    (folder / f"{module}.py").write_text(code)
    info = folder / f"{module}-1.0.dist-info"
    info.mkdir()
    name = module.replace("_", "-")
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    return folder
