"""Whether a model's name means a GGUF file; nothing is read, and nothing else of GGUF imported."""

from __future__ import annotations

from pathlib import Path

from quire.protocol.errors import ModelLoadError


def gguf_file(model: str) -> Path | None:
    """The GGUF file that a model's name means: the file, or the only model in a folder without config.json.

    Raises ModelLoadError for a folder with several.
    """
    path = Path(model)
    if path.suffix == ".gguf" and path.is_file():
        return path
    if not path.is_dir() or (path / "config.json").is_file():
        return None
    found = [
        one
        for one in sorted(path.glob("*.gguf"))
        if "-of-" not in one.name or "-00001-of-" in one.name
    ]
    found = [one for one in found if not one.name.startswith("mmproj")]
    if len(found) > 1:
        names = ", ".join(one.name for one in found)
        raise ModelLoadError(f"{path} holds several models ({names}): give the path of one")
    return found[0] if found else None
