"""Checkpoints in forms other than Hugging Face's folder of safetensors, each as such a folder in the cache.

Mistral's own files, the shards that vLLM saves, pickles, what readers of plug-ins give, and tokenizers that are
not in tokenizer.json. What is not changed is linked; so the rest of the project knows one form only.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from quire.config import plugins
from quire.config.schema import Settings
from quire.models.loading import loaders, mistral, tekken
from quire.models.loading.made import made_folder, state_of
from quire.models.loading.tokenizer_classes import is_outside
from quire.protocol.errors import ModelLoadError, SettingsError

logger = logging.getLogger(__name__)

_VERSION = "2"  # of what is written: another one makes folders anew
SHARDS = "model-rank-{rank}-part-{part}.safetensors"
"""Names of vLLM's files of one device."""
PICKLES = ("sparse_linear.pt", "colbert_linear.pt")
"""The heads' files beside the model's."""
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth", "*.bin")
_RANK = re.compile(r"model\.\d+\.pt")
"""Names of fairseq2's files of one of several devices."""
_NOT_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "optimizer.bin", *PICKLES)
_MODULE = re.compile(r"\d+_\w+")
"""Names of folders of sentence-transformers' modules."""
WEIGHT_ENDS = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".index.json")
"""Of the names of files that hold weights."""

_SERVICE = "its reader is a package for other machines' storage; give safetensors, which are mapped into memory"
_REFUSED = {
    "npcache": "a cache of pickles as NumPy files; pt reads the pickles, and keeps safetensors of them",
    "tensorizer": _SERVICE,
    "runai_streamer": _SERVICE,
    "runai_streamer_sharded": _SERVICE,
    "fastsafetensors": "it copies files to GPUs; safetensors reads the same files",
    "instanttensor": "it copies files to GPUs; safetensors reads the same files",
    "modelexpress": _SERVICE,
}

Files = Mapping[str, Path | bytes]
"""By name, what a file is: the link's target, or its bytes."""


def refuse_form(name: str) -> None:
    """Raises SettingsError, with the reason, for a load format that is known and not read."""
    if name in _REFUSED:
        raise SettingsError(f"load_format {name!r} cannot be used: {_REFUSED[name]}")


def reader_of(load_format: str) -> Any | None:
    """The reader that a plug-in has registered; None for a form that is known here."""
    return plugins.added(loaders.SETTING, load_format)


def in_known_form(folder: Path, settings: Settings) -> Path:
    """A local checkpoint as a folder that `models.registry` reads: itself, or one in the cache.

    Raises ModelLoadError where the settings name a form that the folder does not have, or files are damaged.
    """
    model, form = settings.model, settings.load.load_format
    is_mistral = "mistral" in (model.config_format, form) or (
        model.config_format == "auto"
        and not (folder / "config.json").is_file()
        and (folder / mistral.PARAMS).is_file()
    )
    with_tokenizer = model.tokenizer is None and not model.skip_tokenizer_init
    if is_mistral:
        folder = _made("mistral", folder, lambda _: _of_mistral(folder, with_tokenizer))
    elif form == "sharded_state":
        folder = _made("shards", folder, lambda _: _of_shards(folder))
    elif form == "pt":
        folder = _made("pickles", folder, lambda place: _of_pickles(folder, place))
    elif (kind := reader_of(form)) is not None:
        folder = _made(
            f"loader {form}",
            folder,
            lambda place: _of_reader(kind, folder, settings, place),
            loaders.identity_of(kind, folder, settings),
        )
    return with_tokenizer_file(folder, model.tokenizer_mode) if with_tokenizer else folder


def with_tokenizer_file(folder: Path, mode: str) -> Path:
    """A folder with tokenizer.json: the same one if it has it and the mode wants no other."""
    has_own = (folder / "tokenizer.json").is_file()
    if is_outside(mode):
        return folder
    if mode == "mistral" and not (folder / tekken.NAME).is_file():
        if has_own and (folder / mistral.LINKED).exists():
            return folder
        raise ModelLoadError(
            f"--tokenizer-mode mistral needs {tekken.NAME}, which {folder} lacks; leave it out to use tokenizer.json"
        )
    if mode == "mistral" or (not has_own and (folder / tekken.NAME).is_file()):
        return _made("tekken", folder, lambda _: {**_others(folder), **tekken.files_of(folder)})
    if mode == "slow" and not has_own:
        return _made("slow", folder, lambda place: _from_slow(folder, place))
    return folder


def _of_mistral(folder: Path, with_tokenizer: bool) -> Files:
    weights = sorted(folder.glob("consolidated*.safetensors"))
    if not weights:
        raise ModelLoadError(
            f"{folder} holds no consolidated*.safetensors, which Mistral's form has"
        )
    config = mistral.config_of(folder, tekken.ids_of_ends(folder))
    files: dict[str, Path | bytes] = {path.name: path for path in weights}
    files |= {"config.json": json.dumps(config).encode(), mistral.LINKED: b"{}"}
    for name in ("generation_config.json", "chat_template.jinja", "tokenizer_config.json"):
        if (folder / name).is_file():
            files[name] = folder / name
    if with_tokenizer and (folder / tekken.NAME).is_file():
        files |= tekken.files_of(folder)
    elif with_tokenizer and (folder / "tokenizer.json").is_file():
        files["tokenizer.json"] = folder / "tokenizer.json"
    return files


def _of_shards(folder: Path) -> Files:
    """The shards of the only device, without other forms of the weights beside them."""
    ranks = sorted(folder.glob(SHARDS.format(rank="*", part="*")))
    mine = [path for path in ranks if path.name.startswith("model-rank-0-")]
    if not mine:
        raise ModelLoadError(
            f"{folder} holds no {SHARDS.format(rank=0, part=0)}, as sharded_state needs it"
        )
    if len(mine) < len(ranks):
        raise ModelLoadError(
            f"{folder} was saved by several devices ({ranks[-1].name} is there); this version runs on one: "
            "save it again with tensor_parallel_size=1"
        )
    parts = [SHARDS.format(rank=0, part=part) for part in range(len(mine))]
    missing = [name for name in parts if not (folder / name).is_file()]
    if missing:
        raise ModelLoadError(
            f"{folder} lacks {missing[0]}, though later parts are there; save it again"
        )
    return {**_others(folder), **{path.name: path for path in mine}}


def _of_pickles(folder: Path, place: Path) -> Files:
    """Pickles rewritten as safetensors by torch's loader of weights alone, in a process of its own."""
    found: list[Path] = []
    for pattern in _PICKLES:
        found = found or [
            path for path in sorted(folder.glob(pattern)) if path.name not in _NOT_WEIGHTS
        ]
    if not found:
        raise ModelLoadError(f"{folder} holds no pickled weights (pytorch_model.bin, *.pt, *.pth)")
    groups = [[path] for path in found]
    if all(_RANK.fullmatch(path.name) for path in found):
        groups = [sorted(found, key=lambda path: int(path.name.split(".")[1]))]
    for number, paths in enumerate(groups):
        for path in paths:
            logger.info("reading %s, which is a pickle, for its weights alone", path)
        _run("quire.models.loading.pickled", *paths, place / f"model-{number:05}.safetensors")
    return _others(folder)


def _of_reader(kind: Any, folder: Path, settings: Settings, place: Path) -> Files:
    loaders.write_weights(kind, folder, settings, place)
    return _others(folder)


def _from_slow(folder: Path, place: Path) -> Files:
    """The tokenizer that Transformers makes of a folder's other files."""
    _run("quire.models.loading.slow_tokenizer", folder, place / "made")
    files: dict[str, Path | bytes] = dict(_all_of(folder))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (place / "made" / name).is_file():
            files[name] = (place / "made" / name).read_bytes()
    shutil.rmtree(place / "made")
    return files


def _run(module: str, *paths: Path) -> None:
    """Raises ModelLoadError with the last line that a helper has printed, if it fails; the last path is its target."""
    words = [sys.executable, "-m", module, *map(str, paths)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it printed nothing"]
        raise ModelLoadError(f"{paths[0]} cannot be read: {said[-1]}")


def _others(folder: Path) -> dict[str, Path | bytes]:
    """All files of a folder but weights, and the folders of modules."""
    files: dict[str, Path | bytes] = {
        name: path
        for name, path in _all_of(folder).items()
        if name in PICKLES or not name.endswith(WEIGHT_ENDS)
    }
    modules = [one for one in folder.iterdir() if one.is_dir() and _MODULE.fullmatch(one.name)]
    files.update((one.name, one) for one in modules)
    return files


def _all_of(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}


def _made(
    kind: str, folder: Path, files_of: Callable[[Path], Files], more: Sequence[str] = ()
) -> Path:
    """The folder of this kind in the cache, made if it is not there or what it was made of has changed.

    more  what it was made of besides the folder's files.
    """
    folder = Path(os.path.abspath(folder))
    seen = [state_of(path) for path in _all_of(folder).values()]

    def make(place: Path) -> None:
        for name, what in files_of(place).items():
            if isinstance(what, bytes):
                (place / name).write_bytes(what)
            elif not (place / name).exists():
                (place / name).symlink_to(os.path.abspath(what))

    identity = (_VERSION, kind, str(folder), *seen, *more)
    return made_folder("forms", identity, Path.is_dir, make)
