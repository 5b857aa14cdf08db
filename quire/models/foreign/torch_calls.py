"""Operations of torch by the names that programs give them, and forms of them that write where they are told.

Which of them run is decided in `models.foreign.operations`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def function_of(name: str) -> Any:
    """The function of torch for "aten.<name>.<overload>"."""
    _, packet, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def writer_of(function: Any) -> Any | None:
    """The form of a function that writes to `out`; None if it has none."""
    packet = function.overloadpacket
    wanted = [(one.name, str(one.type)) for one in function._schema.arguments]
    for overload in packet.overloads():
        found = getattr(packet, overload)
        arguments = found._schema.arguments
        outs = [one for one in arguments if one.is_out]
        rest = [(one.name, str(one.type)) for one in arguments if not one.is_out]
        if len(outs) == 1 and outs[0].name == "out" and rest == wanted:
            return found
    return None


def several(function: Any, made: list[torch.Tensor]) -> Callable[..., torch.Tensor]:
    """A function whose results are copied to where they belong."""

    def run(*args: Any, out: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        results = function(*args, **kwargs)
        for room, result in zip(made, results if len(made) > 1 else [results], strict=True):
            room.copy_(result)
        return out

    return run


def in_place(function: Any) -> Callable[..., torch.Tensor]:
    """A function that changes its first argument, which `out` is."""

    def run(*args: Any, out: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        function(*args, **kwargs)
        return out

    return run


def copied(x: torch.Tensor, *, out: torch.Tensor) -> torch.Tensor:
    """x in the memory of `out`."""
    return out.copy_(x)
