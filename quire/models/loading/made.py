"""Folders made of other files and kept in the cache: written under another name, renamed when they are whole.

What is in them is their makers' business: `loading.forms`, `loading.tokenizer_files`, `loading.gguf.folder`.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from quire.config.env import cache_dir

logger = logging.getLogger(__name__)


def state_of(path: Path) -> str:
    """What tells a file from the one that had its name before."""
    status = path.stat()
    return f"{path.name} {status.st_size} {status.st_mtime_ns}"


def made_folder(
    kind: str,
    identity: Iterable[str],
    is_whole: Callable[[Path], bool],
    make: Callable[[Path], None],
) -> Path:
    """A folder of a kind for what `identity` names: the one in the cache, or a new one that `make` fills.

    Where the cache cannot be written, a new one lies in a temporary folder. Raises what `make` raises, but
    OSError only where that folder cannot be written either.
    """
    digest = hashlib.sha256("\\0".join(identity).encode()).hexdigest()[:24]
    parent = cache_dir() / kind
    if is_whole(parent / digest):
        return parent / digest
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return _filled(parent / digest, is_whole, make)
    except OSError as error:
        logger.warning("%s cannot be written (%s); a temporary folder is used", parent, error)
        other = Path(tempfile.mkdtemp(prefix=f"quire-{kind}-"))
        return _filled(other / digest, is_whole, make)


def _filled(folder: Path, is_whole: Callable[[Path], bool], make: Callable[[Path], None]) -> Path:
    unfinished = Path(tempfile.mkdtemp(prefix=".part-", dir=folder.parent))
    try:
        make(unfinished)
        os.replace(unfinished, folder)
    except BaseException as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        if isinstance(error, OSError) and is_whole(folder):  # made by another process meanwhile
            return folder
        raise
    return folder
