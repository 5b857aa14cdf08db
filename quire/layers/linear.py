"""A product with a weight, packed once for the provider that was bound.

Where its rows come from is told in `models.names`; the multiplication is `ops.linear`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from quire.layers.dtypes import dtype_name
from quire.ops.linear import LINEAR
from quire.ops.quantized import QuantizedWeight
from quire.ops.registry import Bound, Table
from quire.quant.formats import PLAIN, Format, Formats
from quire.quant.rounding import quantize

Room = Callable[[Callable[[int], torch.Tensor]], object]
"""Makes a packed weight in the memory that a function gives: uint8 [n] for each n that it is asked for."""


def stored_as(
    weight: torch.Tensor | QuantizedWeight, format: Format
) -> torch.Tensor | QuantizedWeight:
    """A weight [N, K] as its provider packs it: rounded to `format` if it is floats and that has fewer bits."""
    if isinstance(weight, QuantizedWeight) or format.bits is None:
        return weight
    return quantize(weight, format)


def read_to_pack(
    weights: Callable[[str], torch.Tensor], name: str, *packers: Bound
) -> torch.Tensor:
    """A parameter for the `pack` of bound operations, borrowed from its source if all of them copy it."""
    if all(packer.provider.copies_weights for packer in packers):
        weights = getattr(weights, "borrow", weights)
    return weights(name)


def packed_before(
    weights: Callable[[str], torch.Tensor], name: str, product: Bound, room: Room
) -> object | None:
    """What a source has packed already under a name, as a provider makes it; None if it is not there."""
    kept = getattr(weights, "kept", None)
    if kept is None or not hasattr(product.provider, "parts") or not kept.has(name):
        return None
    packed: object | None = kept.packed(name, room)
    return packed


def keep_packed(
    weights: Callable[[str], torch.Tensor], name: str, product: Bound, packed: object
) -> None:
    """Lets a source keep what was packed under a name, if it keeps such things."""
    kept, provider = getattr(weights, "kept", None), product.provider
    if kept is not None and hasattr(provider, "parts"):
        kept.add(name, provider.parts(packed))


class Linear:
    """x [T, K] to x @ weight.T + bias [T, N]; several projections of one input are stacked along N.

    name    of its parameters: `<name>.weight` [N, K] and, with `bias`, `<name>.bias` [N].
    format  how the weight is stored; fewer bits than it comes with are made of it at load, unless it
            comes as it is stored.
    product  the bound operation; packed  what its provider made of the weight.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        *,
        in_size: int,
        out_size: int,
        bias: bool,
        dtype: torch.dtype,
        format: Formats = PLAIN,
    ) -> None:
        self.name = name
        self.out_size = out_size
        self._in_size = in_size
        self._dtype = dtype
        self._bias = bias
        self._format = format.of(f"{name}.weight")
        self.product = table.bind(
            LINEAR, dtype_name(dtype), format=self._format.name, N=out_size, K=in_size
        )
        self.packed: object = None

    def load(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Takes and packs its parameters; only what the provider made of them is kept."""
        if self.take_packed(weights):
            return
        weight = read_to_pack(weights, f"{self.name}.weight", self.product)
        self.pack(weight, self.bias_of(weights))
        self.keep_packed(weights)

    def bias_of(self, weights: Callable[[str], torch.Tensor]) -> torch.Tensor | None:
        """Its bias [N]; None if it has none."""
        return weights(f"{self.name}.bias") if self._bias else None

    def take_packed(self, weights: Callable[[str], torch.Tensor]) -> bool:
        """Takes what its source has packed already; False where that is nothing."""

        def room(take: Callable[[int], torch.Tensor]) -> object:
            sizes = (self.out_size, self._in_size, self._dtype, self._format)
            return self.product.provider.room(*sizes, self.bias_of(weights), take)

        packed = packed_before(weights, self.name, self.product, room)
        if packed is not None:
            self.packed = packed
        return packed is not None

    def keep_packed(self, weights: Callable[[str], torch.Tensor]) -> None:
        """Lets its source keep what was packed."""
        keep_packed(weights, self.name, self.product, self.packed)

    def pack(
        self, weight: torch.Tensor | QuantizedWeight, bias: torch.Tensor | None = None
    ) -> None:
        """Packs weight [N, K] and bias [N]."""
        stored = stored_as(weight, self._format)
        self.packed = self.product.provider.pack(stored, bias)

    def __call__(
        self, x: torch.Tensor, *, out: torch.Tensor, delta: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Writes [T, N] into `out`; delta [T, N] float32 is added before rounding."""
        self.product(x, self.packed, delta=delta, out=out)
        return out
