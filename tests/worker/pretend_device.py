"""A device that is not there: tensors that live on the CPU, say "cuda", and refuse what a GPU refuses.

Which code runs on it is the tests' choice; real GPUs are for the tests marked gpu.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from quire.worker.executor import LocalExecutor

DEVICE = torch.device("cuda", 0)
_HOST_ONLY = ("numpy", "__array__")
"""Functions that read a tensor's memory as an array."""
_MIXES = ("copy_", "to")
"""Functions that may meet tensors of both devices."""
_INDEXES = ("__getitem__", "__setitem__", "index_put_")
"""Functions whose index, the second argument, may be on the host."""


class OnDevice(torch.Tensor):
    """A tensor that counts as the device's."""


class WrongDeviceError(RuntimeError):
    """What a GPU would refuse: tensors of two devices in one operation, or its memory read as an array."""


class PretendDevice(TorchFunctionMode):
    """While it is entered, in this thread, device="cuda" makes tensors that only meet their like."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.device:
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        owner = getattr(func, "__self__", None)
        if name == "__get__" and getattr(owner, "__name__", "") == "device":
            return DEVICE if isinstance(args[0], OnDevice) else torch.device("cpu")
        named = [one for one in (*args, *kwargs.values()) if _as_device(one) is not None]
        asked = _as_device(named[-1]) if named else torch.device("cpu") if name == "cpu" else None
        self._check(name, args, kwargs)
        on_device = any(isinstance(one, OnDevice) for one in _tensors((args, kwargs)))
        if asked is not None:
            on_device = asked.type == DEVICE.type
            args = tuple(_on_host(one) for one in args)
            kwargs = {key: _on_host(value) for key, value in kwargs.items()}
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **kwargs)
            return _marked(result) if on_device else _plain(result, asked)

    def _check(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if name in _HOST_ONLY and any(isinstance(one, OnDevice) for one in args):
            raise WrongDeviceError(f"{name} of a tensor that is on {DEVICE}")
        if name in _MIXES:
            return
        if name in _INDEXES:
            args = (args[0], *args[2:])
        # Numbers mix with everything, as long as they are on the host.
        sides = {isinstance(one, OnDevice) for one in _tensors((args, kwargs)) if one.dim() > 0}
        if len(sides) > 1:
            raise WrongDeviceError(f"{name} of tensors that are on cpu and on {DEVICE}")


class PretendExecutor(LocalExecutor):
    """A worker whose compute thread sees the device."""

    def _run(self, load: Callable[[], Any]) -> None:
        with PretendDevice():
            super()._run(load)


def _as_device(value: Any) -> torch.device | None:
    """The device that an argument names, if it is one of the two."""
    if isinstance(value, str) and value.partition(":")[0] in ("cpu", DEVICE.type):
        return torch.device(value)
    known = isinstance(value, torch.device) and value.type in ("cpu", DEVICE.type)
    return value if known else None


def _on_host(value: Any) -> Any:
    return value if _as_device(value) is None else torch.device("cpu")


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)


def _marked(result: Any) -> Any:
    if isinstance(result, OnDevice) or not isinstance(result, torch.Tensor | tuple):
        return result
    if isinstance(result, torch.Tensor):
        return result.as_subclass(OnDevice)
    made = [_marked(one) for one in result]
    return type(result)(made) if hasattr(result, "n_fields") else tuple(made)


def _plain(result: Any, asked: torch.device | None) -> Any:
    """A tensor brought back to the host is no longer the device's."""
    if asked is not None and isinstance(result, OnDevice):
        return result.clone().as_subclass(torch.Tensor)
    return result
