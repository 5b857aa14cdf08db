"""The parameters of attention over entries, and of what stands between residual streams.

The others are in `models.parameters`.
"""

from __future__ import annotations

from quire.models.compressed import Compressed
from quire.models.parameter import Parameter, ParameterGroup
from quire.models.streams import HyperStreams


def connection(
    table: dict[str, Parameter], name: str, streams: HyperStreams, width: int, *, writes: bool
) -> None:
    """What streams are read by, and if it `writes` written and mixed."""
    rows = streams.num_shares if writes else streams.count
    table[f"{name}.weight"] = Parameter(((rows, streams.count * width),), "router_float32")
    table[f"{name}.base"] = Parameter(((rows,),), "state")
    scales = (2 + bool(streams.rounds)) if writes else 1
    table[f"{name}.scale"] = Parameter(((scales,),), "state")


def compressed_parameters(
    table: dict[str, Parameter], prefix: str, spec: Compressed, width: int
) -> None:
    """Those of a mixer whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "attention"
    heads = spec.num_heads * spec.head_size
    table[f"{prefix}.q_down.weight"] = Parameter(((spec.q_rank, width),), group)
    table[f"{prefix}.q_norm.weight"] = Parameter(((spec.q_rank,),), "norm")
    table[f"{prefix}.q_up.weight"] = Parameter(((heads, spec.q_rank),), group)
    table[f"{prefix}.kv.weight"] = Parameter(((spec.head_size, width),), group)
    table[f"{prefix}.kv_norm.weight"] = Parameter(((spec.head_size,),), "norm")
    table[f"{prefix}.sinks"] = Parameter(((spec.num_heads,),), "choice")
    narrow = spec.out_groups * spec.out_rank
    down = (narrow, heads // spec.out_groups)
    table[f"{prefix}.out_down.weight"] = Parameter((down,), "latent")
    table[f"{prefix}.out.weight"] = Parameter(((width, narrow),), group)
    sizes = {"compress": spec.head_size} if spec.rate else {}
    if spec.index_heads:
        sizes["index.compress"] = spec.index_size
        queries = spec.index_heads * spec.index_size
        table[f"{prefix}.index.q.weight"] = Parameter(((queries, spec.q_rank),), "latent")
        table[f"{prefix}.index.shares.weight"] = Parameter(((spec.index_heads, width),), "latent")
    for name, size in sizes.items():
        both = ((spec.series * size, width),) * 2  # vectors, and what weighs them
        table[f"{prefix}.{name}.weight"] = Parameter(both, "latent")
        slots = (spec.rate, spec.series * size)
        table[f"{prefix}.{name}.slots"] = Parameter((slots,), "state")
        table[f"{prefix}.{name}.norm.weight"] = Parameter(((size,),), "norm")
