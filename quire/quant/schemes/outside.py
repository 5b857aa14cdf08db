"""Methods of quantized checkpoints that plug-ins add: what a weight is made of, and who makes numbers of it.

The methods that need no plug-in are `schemes.checkpoint`'s and `quant.decoders`'.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from quire.config import plugins
from quire.quant.schemes.parts import Infos, Read, collect
from quire.quant.stored import StoredTensor

SETTING = "quantization"


class QuantizationConfig(ABC):
    """How checkpoints of a method keep their weights; made of their quantization_config.

    It tells what is stored; products are computed with floats, or in the format that a StoredTensor names.
    """

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any]) -> QuantizationConfig:
        """One for the quantization_config of a checkpoint. ValueError says what of it cannot be read."""

    @abstractmethod
    def weights(self, infos: Infos, read: Read) -> Mapping[str, StoredTensor]:
        """The quantized weights by their names among plain floats; all other tensors are plain.

        infos  element types and shapes of the tensors in the files, by name. read  the bytes of a small one.
        """

    @staticmethod
    @abstractmethod
    def decode(members: Mapping[str, Any], stored: StoredTensor, dtype: Any) -> Any:
        """The numbers of a weight: a tensor of stored.shape, of floats, or a QuantizedWeight of stored.format.

        members  its tensors, by the names that stored.members gives them. dtype  of the rows that will be
        multiplied. Floats are rounded to stored.format where that is not PLAIN.
        """


_Class = TypeVar("_Class", bound=type)


def register_quantization_config(name: str) -> Callable[[_Class], _Class]:
    """A decorator that makes a method known by the `quant_method` of checkpoints.

    Raises TypeError for a class that does not derive from `QuantizationConfig`, as one with vLLM's
    get_quant_method alone; ValueError for a name of our own.
    """

    def register(kind: _Class) -> _Class:
        if not (isinstance(kind, type) and issubclass(kind, QuantizationConfig)):
            raise TypeError(f"{name}: {kind!r} does not derive from QuantizationConfig")
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        if missing:
            raise TypeError(
                f"{name}: {kind.__name__} does not define {missing}; products are Quire's own here, and a method "
                "says how its weights are stored: docs/vllm_programs.md"
            )
        plugins.add(SETTING, name, kind)
        return kind

    return register


def names() -> list[str]:
    """Of the methods that plug-ins have registered."""
    return plugins.added_names(SETTING)


def reader_of(
    name: str,
) -> Callable[[Mapping[str, Any], Infos, Read], dict[str, StoredTensor]] | None:
    """What reads checkpoints of a plug-in's method, as those of `schemes.checkpoint` do; None if there is none."""
    kind = plugins.added(SETTING, name)
    if kind is None:
        return None

    def reader(settings: Mapping[str, Any], infos: Infos, read: Read) -> dict[str, StoredTensor]:
        try:
            found = dict(kind.from_config(dict(settings)).weights(infos, read))
        except Exception as error:  # the operator's code may fail in any way
            raise _failed(name, error) from error
        for weight, stored in found.items():
            lost = [one for one in stored.members.values() if one not in infos]
            if lost:
                raise ValueError(f"{weight} is made of {lost[0]!r}, which the checkpoint lacks")
        return collect(infos, found)

    return reader


def decoder_of(name: str) -> Callable[[Mapping[str, Any], StoredTensor, Any], Any]:
    """What makes numbers of a plug-in's weights. Raises ValueError where there is no such method."""
    kind = plugins.added(SETTING, name)
    if kind is None:
        raise ValueError(f"nothing is registered that reads {name!r}")

    def decoder(members: Mapping[str, Any], stored: StoredTensor, dtype: Any) -> Any:
        try:
            found = kind.decode(members, stored, dtype)
        except Exception as error:
            raise _failed(name, error) from error
        shape = tuple(getattr(found, "codes", found).shape)
        if shape != tuple(stored.shape) and not stored.options.get("is_turned"):
            raise ValueError(f"the method {name!r} made {list(shape)} of {list(stored.shape)}")
        return found

    return decoder


def code_of_method(name: Any) -> str:
    """What tells a plug-in's method from what had its name before; "" for our own."""
    kind = plugins.added(SETTING, name) if isinstance(name, str) else None
    return "" if kind is None else plugins.code_of(kind)


def _failed(name: str, error: Exception) -> ValueError:
    said = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return ValueError(f"the method {name!r}: {said}")
