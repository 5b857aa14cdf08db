"""Readers of checkpoints that plug-ins add by a name of `load_format`, and what they read written down.

Such weights become a folder of safetensors in the cache, as those of `loading.forms` do, and are read from there.
"""

from __future__ import annotations

import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from quire.config import plugins
from quire.config.schema import LoadConfig, ModelConfig, Settings
from quire.protocol.errors import ModelLoadError

SETTING = "load_format"
NAME = "model-{part:05}.safetensors"
_PART_BYTES = 1 << 30
"""Of tensors that are in memory at once, and of a file."""

Pairs = Iterable[tuple[str, Any]]
"""Names of the architecture's checkpoints, and torch tensors; a tensor may be used again for the next."""
_Kind = TypeVar("_Kind")


class BaseModelLoader(ABC):
    """Reads the weights of a checkpoint, under vLLM's names of its parts; one is made for each reading.

    files  patterns of the files that are fetched where the model is a name on the hub.
    """

    files: tuple[str, ...] = ("*",)

    def __init__(self, load_config: LoadConfig) -> None:
        self.load_config = load_config

    def download_model(self, model_config: ModelConfig) -> None:
        """Fetches what `load_weights` will read; nothing here."""
        return None

    @abstractmethod
    def load_weights(self, model: Weights, model_config: ModelConfig) -> Any:
        """Hands all tensors to `model.load_weights`, in one call or several; `model_config.model` is the folder."""

    def state(self, model_config: ModelConfig) -> str:
        """What tells weights that do not lie in the folder's files from those before them; "" if they do."""
        return ""


class Weights:
    """What a reader fills: files of safetensors, written as tensors come."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._part: dict[str, Any] = {}
        self._num_bytes = self._num_parts = 0
        self._names: set[str] = set()

    def load_weights(self, weights: Pairs) -> set[str]:
        """Takes tensors; gives back their names. Raises ModelLoadError for what is no tensor, or a name twice."""
        taken = set()
        for name, tensor in weights:
            if not isinstance(name, str) or not hasattr(tensor, "detach"):
                raise ModelLoadError(
                    f"{name!r} is given as {type(tensor).__name__}, not as a tensor"
                )
            if name in self._names:
                raise ModelLoadError(f"the tensor {name!r} is given twice")
            own = tensor.detach().cpu().contiguous().clone()
            if self._part and self._num_bytes + own.nbytes > _PART_BYTES:
                self.write()
            self._part[name] = own
            self._num_bytes += own.nbytes
            self._names.add(name)
            taken.add(name)
        return taken

    def write(self) -> None:
        """Writes what was taken since the last time."""
        path = self._place / NAME.format(part=self._num_parts)
        importlib.import_module("safetensors.torch").save_file(self._part, path, {"format": "pt"})
        self._part, self._num_bytes = {}, 0
        self._num_parts += 1

    def end(self) -> None:
        """Writes the rest. Raises ModelLoadError where nothing came."""
        if not self._names:
            raise ModelLoadError("it gave no tensors")
        if self._part:
            self.write()


def register_model_loader(load_format: str) -> Callable[[_Kind], _Kind]:
    """A decorator that makes a reader known to `--load-format`; one of ours keeps its name.

    It stands over a subclass of `BaseModelLoader`, or a function of the folder that gives `Pairs`.
    Raises TypeError for anything else, ValueError for a name that cannot be given.
    """

    def register(kind: _Kind) -> _Kind:
        is_loader = isinstance(kind, type) and issubclass(kind, BaseModelLoader)
        if not is_loader and (isinstance(kind, type) or not callable(kind)):
            raise TypeError(
                f"{load_format}: {kind!r} is neither a subclass of BaseModelLoader nor a function of a folder"
            )
        plugins.add(SETTING, load_format, kind)
        return kind

    return register


def patterns_of(kind: Any) -> tuple[str, ...]:
    """The files of a name on the hub that a reader wants."""
    return tuple(getattr(kind, "files", BaseModelLoader.files))


def identity_of(kind: Any, folder: Path, settings: Settings) -> list[str]:
    """What tells the weights that a reader gives of a folder from others, besides the folder's files."""
    extra = json.dumps(settings.load.model_loader_extra_config, sort_keys=True)
    state = ""
    if isinstance(kind, type):
        with _names_reader(folder, settings):
            state = kind(settings.load).state(replace(settings.model, model=str(folder)))
    return [plugins.code_of(kind), extra, state]


def write_weights(kind: Any, folder: Path, settings: Settings, place: Path) -> None:
    """Writes what a reader gives of a folder. Raises ModelLoadError with its name if it fails."""
    weights = Weights(place)
    with _names_reader(folder, settings):
        if isinstance(kind, type):
            loader = kind(settings.load)
            model = replace(settings.model, model=str(folder))
            loader.download_model(model)
            loader.load_weights(weights, model)
        else:
            weights.load_weights(kind(folder))
        weights.end()


@contextmanager
def _names_reader(folder: Path, settings: Settings) -> Iterator[None]:
    """Makes a ModelLoadError of whatever a reader raises."""
    try:
        yield
    except Exception as error:  # the operator's code may fail in any way
        what = f"{type(error).__name__}: " * (not isinstance(error, ModelLoadError))
        raise ModelLoadError(
            f"{folder} cannot be read with load_format {settings.load.load_format!r}: {what}{error}"
        ) from error
