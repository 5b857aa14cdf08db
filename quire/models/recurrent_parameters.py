"""The parameters of mixers that keep a state.

The others are in `models.parameters`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from quire.models.parameter import Parameter, ParameterGroup
from quire.models.recurrent import (
    ChannelMix,
    GatedDeltaNet,
    GatedLru,
    HeadMamba,
    LinearAttention,
    Mamba1,
    Mamba2,
    MatrixMemory,
    ShortConv,
    TimeMix,
)


def mamba2(table: dict[str, Parameter], prefix: str, spec: Mamba2, width: int) -> None:
    """Those of Mamba 2, whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "recurrent"
    rows = (spec.inner, spec.convolved, spec.num_heads)  # gate, what is convolved, steps
    table[f"{prefix}.in.weight"] = Parameter(tuple((n, width) for n in rows), group)
    table[f"{prefix}.back.weight"] = Parameter(((width, spec.inner),), group)
    if spec.bias:
        table[f"{prefix}.in.bias"] = Parameter(tuple((n,) for n in rows), group)
        table[f"{prefix}.back.bias"] = Parameter(((width,),), group)
    _convolution(table, f"{prefix}.conv", spec.convolved, spec.kernel, spec.conv_bias)
    for name in ("step_bias", "decay", "skip"):
        table[f"{prefix}.{name}"] = Parameter(((spec.num_heads,),), "state")
    if spec.gate_norm != "none":
        table[f"{prefix}.norm.weight"] = Parameter(((spec.inner,),), "norm")


def mamba1(table: dict[str, Parameter], prefix: str, spec: Mamba1, width: int) -> None:
    """Those of Mamba 1, whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "recurrent"
    made = (spec.step_rank, spec.state_size, spec.state_size)
    table[f"{prefix}.in.weight"] = Parameter(((spec.inner, width),) * 2, group)
    table[f"{prefix}.back.weight"] = Parameter(((width, spec.inner),), group)
    if spec.bias:
        table[f"{prefix}.in.bias"] = Parameter(((spec.inner,),) * 2, group)
        table[f"{prefix}.back.bias"] = Parameter(((width,),), group)
    _convolution(table, f"{prefix}.conv", spec.inner, spec.kernel, spec.conv_bias)
    table[f"{prefix}.made.weight"] = Parameter(tuple((n, spec.inner) for n in made), "latent")
    if spec.norms == "learned":
        for name, size in zip(("step_norm", "write_norm", "read_norm"), made, strict=True):
            table[f"{prefix}.{name}.weight"] = Parameter(((size,),), "norm")
    table[f"{prefix}.step.weight"] = Parameter(((spec.inner, spec.step_rank),), "latent")
    table[f"{prefix}.step_bias"] = Parameter(((spec.inner,),), "state")
    table[f"{prefix}.decay"] = Parameter(((spec.inner, spec.state_size),), "state")
    table[f"{prefix}.skip"] = Parameter(((spec.inner,),), "state")


def head_mamba(table: dict[str, Parameter], prefix: str, spec: HeadMamba, width: int) -> None:
    """Those of one with a decay a head and steps made later, whose names begin with `prefix`."""
    made = (spec.state_size, spec.state_size, spec.step_rank)
    table[f"{prefix}.in.weight"] = Parameter(((spec.inner, width),) * 2, "recurrent")
    table[f"{prefix}.back.weight"] = Parameter(((width, spec.inner),), "recurrent")
    _convolution(table, f"{prefix}.conv", spec.inner, spec.kernel, False)
    table[f"{prefix}.made.weight"] = Parameter(tuple((n, spec.inner) for n in made), "latent")
    for name, size in zip(("write_norm", "read_norm", "step_norm"), made, strict=True):
        table[f"{prefix}.{name}.weight"] = Parameter(((size,),), "norm")
    table[f"{prefix}.step.weight"] = Parameter(((spec.num_heads, spec.step_rank),), "latent")
    for name in ("step_bias", "decay", "skip"):
        table[f"{prefix}.{name}"] = Parameter(((spec.num_heads,),), "state")


def short_conv(table: dict[str, Parameter], prefix: str, spec: ShortConv, width: int) -> None:
    """Those of a short convolution, whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "recurrent"
    table[f"{prefix}.in.weight"] = Parameter(((spec.width, width),) * 3, group)
    table[f"{prefix}.back.weight"] = Parameter(((width, spec.width),), group)
    if spec.bias:
        table[f"{prefix}.in.bias"] = Parameter(((spec.width,),) * 3, group)
        table[f"{prefix}.back.bias"] = Parameter(((width,),), group)
    table[f"{prefix}.conv.weight"] = Parameter(((spec.width, spec.kernel),), "state")
    if spec.bias:
        table[f"{prefix}.conv.bias"] = Parameter(((spec.width,),), "state")


def delta_net(table: dict[str, Parameter], prefix: str, spec: GatedDeltaNet, width: int) -> None:
    """Those of a gated delta net or of KDA, whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "recurrent"
    mixed = (spec.keys, spec.keys, spec.values)  # q, k and v
    heads, decays = spec.num_heads, spec.decays
    rows = mixed if spec.rank else (*mixed, spec.values)  # and the gates
    table[f"{prefix}.in.weight"] = Parameter(tuple((n, width) for n in rows), group)
    small = (
        (heads, spec.rank, spec.rank) if spec.rank else (heads, decays)
    )  # strengths, decays, gates
    table[f"{prefix}.steps.weight"] = Parameter(tuple((n, width) for n in small), "latent")
    if spec.rank:
        table[f"{prefix}.decay_up.weight"] = Parameter(((decays, spec.rank),), "latent")
        table[f"{prefix}.gate_up.weight"] = Parameter(((spec.values, spec.rank),), "latent")
    table[f"{prefix}.conv.weight"] = Parameter(tuple((n, spec.kernel) for n in mixed), "state")
    table[f"{prefix}.rate"] = Parameter(((heads,),), "state")
    table[f"{prefix}.decay_bias"] = Parameter(((decays,),), "state")
    table[f"{prefix}.norm.weight"] = Parameter(((spec.value_size,),), "norm")
    table[f"{prefix}.back.weight"] = Parameter(((width, spec.values),), group)


def linear_attention(
    table: dict[str, Parameter], prefix: str, spec: LinearAttention, width: int
) -> None:
    """Those of linear attention, whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "recurrent"
    rows = (spec.inner,) * 4  # q, k, v and the gates
    table[f"{prefix}.in.weight"] = Parameter(tuple((n, width) for n in rows), group)
    table[f"{prefix}.norm.weight"] = Parameter(((spec.inner,),), "norm")
    table[f"{prefix}.back.weight"] = Parameter(((width, spec.inner),), group)


def _convolution(
    table: dict[str, Parameter], prefix: str, channels: int, kernel: int, bias: bool
) -> None:
    table[f"{prefix}.weight"] = Parameter(((channels, 1, kernel),), "state")
    if bias:
        table[f"{prefix}.bias"] = Parameter(((channels,),), "state")


def time_mix(table: dict[str, Parameter], prefix: str, spec: TimeMix, width: int) -> None:
    """Those of a mixer of weighed values, whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "recurrent"
    table[f"{prefix}.shares"] = Parameter(((width,),) * 3, "state")  # of key, value and receptance
    for name in ("key", "value", "receptance"):
        table[f"{prefix}.{name}.weight"] = Parameter(((spec.inner, width),), group)
    for name in ("decay", "first"):
        table[f"{prefix}.{name}"] = Parameter(((spec.inner,),), "state")
    table[f"{prefix}.back.weight"] = Parameter(((width, spec.inner),), group)


def channel_mix(table: dict[str, Parameter], prefix: str, spec: ChannelMix, width: int) -> None:
    """Those of a feed-forward part of blended inputs, whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "recurrent"
    table[f"{prefix}.blends"] = Parameter(
        ((width,),) * 2, "state"
    )  # of what goes up and of the gate
    table[f"{prefix}.up.weight"] = Parameter(((spec.inner, width),), group)
    table[f"{prefix}.gate.weight"] = Parameter(((width, width),), group)
    table[f"{prefix}.down.weight"] = Parameter(((width, spec.inner),), group)


def gated_lru(table: dict[str, Parameter], prefix: str, spec: GatedLru, width: int) -> None:
    """Those of a gated recurrence, whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "recurrent"
    share = spec.inner // spec.num_heads
    for kind, tail in (("weight", (width,)), ("bias", ())):
        table[f"{prefix}.in.{kind}"] = Parameter(((spec.inner, *tail),) * 2, group)
    _convolution(table, f"{prefix}.conv", spec.inner, spec.kernel, bias=True)
    table[f"{prefix}.gates"] = Parameter(((spec.num_heads, share, share),) * 2, "latent")
    table[f"{prefix}.gates_bias"] = Parameter(((spec.num_heads, share),) * 2, "state")
    table[f"{prefix}.fall"] = Parameter(((spec.inner,),), "state")
    table[f"{prefix}.back.weight"] = Parameter(((width, spec.inner),), group)
    table[f"{prefix}.back.bias"] = Parameter(((width,),), group)


def matrix_memory(table: dict[str, Parameter], prefix: str, spec: MatrixMemory, width: int) -> None:
    """Those of matrices of keys and values, whose names begin with `prefix`, in a decoder of `width`."""
    group: ParameterGroup = "recurrent"
    keys = spec.num_heads * spec.key_size
    rows = (keys, keys, spec.inner, spec.inner)  # queries, keys, values, gates of the result
    table[f"{prefix}.in.weight"] = Parameter(tuple((n, width) for n in rows), group)
    for kind, tail in (("weight", (width,)), ("bias", ())):
        table[f"{prefix}.gates.{kind}"] = Parameter(((spec.num_heads, *tail),) * 2, "router")
    table[f"{prefix}.norm.weight"] = Parameter(((spec.num_heads * spec.value_size,),), "norm")
    table[f"{prefix}.back.weight"] = Parameter(((width, spec.inner),), group)


RECURRENT_PARAMETERS: dict[type, Callable[[dict[str, Parameter], str, Any, int], None]] = {
    ShortConv: short_conv,
    GatedDeltaNet: delta_net,
    LinearAttention: linear_attention,
    Mamba1: mamba1,
    Mamba2: mamba2,
    HeadMamba: head_mamba,
    TimeMix: time_mix,
    ChannelMix: channel_mix,
    GatedLru: gated_lru,
    MatrixMemory: matrix_memory,
}
"""What writes down the parameters of each kind of mixer that keeps a state."""
