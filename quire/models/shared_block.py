"""A mixer behind a block of attention and feed-forward part whose weights several layers share: Zamba's hybrids.

What it computes is in `layers.shared_block`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quire.models.feed_forward import Dense
from quire.models.parameter import Parameter
from quire.models.recurrent import Mamba2

if TYPE_CHECKING:
    from quire.models.spec import Attention, Mixer


@dataclass(frozen=True, kw_only=True)
class AfterBlock:
    """`mixer` reads a norm of the residual stream plus what a shared block makes of it. Source: arXiv 2411.15242.

    The block reads a norm of stream and embedding side by side. It attends; of what that gives, normed, the
    feed-forward part makes what a product of the layer's own brings into the stream's space.

    home        the layer by whose number the block's weights are known, the first that has it.
    use         this layer's number among all that have a block.
    heads_rank  of the layer's own products beside the block's for queries, keys and values; 0 for none.
    rank        of those beside the one for gate and up.
    """

    attention: Attention
    feed_forward: Dense
    mixer: Mamba2
    home: int
    use: int
    heads_rank: int
    rank: int
    norm_eps: float = 1e-5

    @property
    def parts(self) -> tuple[Mixer, ...]:
        """Both mixers, as the cache numbers them."""
        return self.attention, self.mixer

    def with_parts(self, parts: tuple[Mixer, ...]) -> AfterBlock:
        """The same with these mixers."""
        return replace(self, attention=parts[0], mixer=parts[1])  # type: ignore[arg-type]

    @property
    def places(self) -> dict[str, int]:
        """What stands for "{home}" and "{use}" in a weight map."""
        return {"home": self.home, "use": self.use}

    @property
    def heads(self) -> tuple[int, int, int]:
        """Numbers of a token's queries, keys and values."""
        one = self.attention
        keys = one.num_kv_heads * one.head_size
        return one.num_heads * one.head_size, keys, keys

    def room(self, width: int, attention: int, mixer: int) -> int:
        """Numbers a token that it takes, one part after the other, with those of its mixers."""
        own = 3 * self.heads_rank + max(self.heads) if self.heads_rank else 0
        fed = 4 * self.feed_forward.width + self.rank  # gate and up, twice
        return width + max(2 * width + attention + own, fed, mixer)

    def inputs(self, width: int) -> set[int]:
        """The widths that its products take beside its mixers' own."""
        return {2 * width, self.feed_forward.width, self.heads_rank, self.rank} - {0}


def block_parameters(
    spec: AfterBlock, prefix: str, width: int, *, owns_block: bool
) -> dict[str, Parameter]:
    """Those of a layer beside its mixer's, and of the block if the layer is where that is known."""
    found: dict[str, Parameter] = {}
    part, own = spec.feed_forward, spec.heads_rank
    if owns_block:
        block = f"{prefix}.block"
        found |= {
            f"{block}.norm_before_mixer.weight": Parameter(((2 * width,),), "norm"),
            f"{block}.qkv.weight": Parameter(
                tuple((n, 2 * width) for n in spec.heads), "attention"
            ),
            f"{block}.out.weight": Parameter(((width, spec.heads[0]),), "attention"),
            f"{block}.norm_before_feed_forward.weight": Parameter(((width,),), "norm"),
            f"{block}.gate_up.weight": Parameter(((part.width, width),) * 2, "feed_forward"),
            f"{block}.down.weight": Parameter(((width, part.width),), "feed_forward"),
        }
        if part.bias:
            found[f"{block}.gate_up.bias"] = Parameter(((part.width,),) * 2, "feed_forward")
            found[f"{block}.down.bias"] = Parameter(((width,),), "feed_forward")
    if own:
        heads = f"{prefix}.own_heads"
        found[f"{heads}.down.weight"] = Parameter(((own, 2 * width),) * 3, "attention")
        for name, rows in zip("qkv", spec.heads, strict=True):
            found[f"{heads}.{name}.weight"] = Parameter(((rows, own),), "attention")
    gates = f"{prefix}.own_gates"
    return found | {
        f"{gates}.down.weight": Parameter(((spec.rank, width),), "feed_forward"),
        f"{gates}.up.weight": Parameter(((part.width, spec.rank),) * 2, "feed_forward"),
        f"{prefix}.entry.weight": Parameter(((width, width),), "feed_forward"),
        f"{prefix}.norm_after_block.weight": Parameter(((width,),), "norm"),
    }
