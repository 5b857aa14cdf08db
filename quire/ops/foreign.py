"""What a model of Transformers leaves to torch: any function of torch that can write where it is told.

Which functions those may be is told in `models.foreign.rows`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from quire.ops.registry import Provider, declare, register

TORCH = declare(
    "torch",
    "pure",
    "run(function, args, kwargs, out [...]): a function of torch writes to out",
)


@register
class TorchReference(Provider):
    op = "torch"
    name = "reference"

    def run(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        out: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """function(*args, **kwargs, out=out), for a function that takes `out`; returns its result.

        Whether rows of the result depend on each other is the function's: what may, is named at start.
        """
        result: torch.Tensor = function(*args, **kwargs, out=out)
        return result
