"""Carries out recorded steps that depend on positions only, with numbers, for the pass's own length."""

from __future__ import annotations

from typing import Any

import torch

from quire.models.foreign.trace import Recording, Ref


def evaluate(recording: Recording, wanted: list[int]) -> list[torch.Tensor] | None:
    """The numbers of registers at positions 0, 1, 2, ...; None if they depend on more than positions."""
    length = recording.tensors[1].shape[1]
    values: dict[int, torch.Tensor] = {1: torch.arange(length)[None], **recording.constants}
    for step in recording.steps:
        if not step.op.startswith("aten."):
            continue
        if not _known(step.args, values) or not _known(list(step.kwargs.values()), values):
            continue
        result = operation(step.op)(
            *(_filled(arg, values) for arg in step.args),
            **{key: _filled(value, values) for key, value in step.kwargs.items()},
        )
        made = list(result) if isinstance(result, list | tuple) else [result]
        values.update(zip(step.outs, made, strict=True))
    found = [values.get(number) for number in wanted]
    return None if any(one is None for one in found) else found  # type: ignore[return-value]


def operation(name: str) -> Any:
    """The function of torch for "aten.<name>.<overload>"."""
    _, packet, overload = name.split(".")
    return getattr(getattr(torch.ops.aten, packet), overload)


def _known(args: Any, values: dict[int, torch.Tensor]) -> bool:
    if isinstance(args, list):
        return all(_known(arg, values) for arg in args)
    if isinstance(args, Ref):
        return args.number in values
    return type(args).__name__ != "ParameterRef"


def _filled(arg: Any, values: dict[int, torch.Tensor]) -> Any:
    if isinstance(arg, list):
        return [_filled(item, values) for item in arg]
    return values[arg.number] if isinstance(arg, Ref) else arg
