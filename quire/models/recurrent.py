"""Descriptions of mixers whose past is a state of a fixed size, as frozen data like `models.spec`.

What they compute is in `layers`; where states are kept is `engine.kvcache`'s business.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Literal

from quire.models.feed_forward import Activation
from quire.protocol.cache import CacheKind

GateNorm = Literal["gated", "norm_then_gate", "none"]
_STATE_ALIGNMENT = 64  # bytes, as in `ops.state`


class Recurrent(ABC):
    """A mixer that keeps some states of float32 for each sequence, however long it is."""

    @abstractmethod
    def states(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each state."""

    @abstractmethod
    def inputs(self) -> tuple[int, ...]:
        """The widths that its products take beside the layer's own."""

    @abstractmethod
    def room(self) -> int:
        """Numbers a token that it takes while it runs, beside its input."""

    def cache_kind(self) -> CacheKind:
        return "recurrent"

    @property
    def state_bytes(self) -> int:
        """Bytes of all its states in a block."""
        sizes = (4 * prod(shape) for shape in self.states())
        return sum(-(-size // _STATE_ALIGNMENT) * _STATE_ALIGNMENT for size in sizes)


@dataclass(frozen=True, kw_only=True)
class ShortConv(Recurrent):
    """Each of `width` channels mixes its last `kernel` inputs, between two gates. Source: arXiv 2511.23404.

    bias  of the products into and out of it, and of the convolution.
    """

    width: int
    kernel: int
    bias: bool = False

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The inputs before a token [kernel - 1, width]."""
        return ((self.kernel - 1, self.width),)

    def inputs(self) -> tuple[int, ...]:
        return (self.width,)

    def room(self) -> int:
        return 4 * self.width


@dataclass(frozen=True, kw_only=True)
class GatedDeltaNet(Recurrent):
    """A matrix [key_size, value_size] for each head, by the rule of `ops.delta_rule`, normed and gated.

    key_heads   heads of queries and keys, each of which serves as many neighbouring heads.
    in_turns    it serves every `key_heads`-th head instead.
    kernel      tokens that the convolution before it sees, the newest included.
    rank        0: one decay a head; else one for each channel of a key, made, like the gates, by two products
                of which the first gives so many numbers. Sources: arXiv 2412.06464, 2510.26692.
    by_channel  such decays without a rank: by one product.
    bound       not 0: the most that a channel forgets in a token, as `ops.delta_rule.Forgetting` says.
    strength    the most that a token's strength can be.
    gate        what the normed result is multiplied with: silu or sigmoid of a gate.
    """

    key_heads: int
    num_heads: int
    key_size: int
    value_size: int
    kernel: int = 4
    rank: int = 0
    strength: float = 1.0
    gate: Literal["silu", "sigmoid"] = "silu"
    norm_eps: float = 1e-6
    in_turns: bool = False
    by_channel: bool = False
    bound: float = 0.0

    @property
    def decays(self) -> int:
        """Numbers of a token's decays."""
        return self.num_heads * (self.key_size if self.rank or self.by_channel else 1)

    @property
    def keys(self) -> int:
        """Numbers of a token's keys."""
        return self.key_heads * self.key_size

    @property
    def values(self) -> int:
        """Numbers of a token's values, and of the result."""
        return self.num_heads * self.value_size

    @property
    def convolved(self) -> int:
        """Channels of the convolution: queries, keys and values."""
        return 2 * self.keys + self.values

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution [kernel - 1, channels], and the heads' matrices."""
        return (
            (self.kernel - 1, self.convolved),
            (self.num_heads, self.key_size, self.value_size),
        )

    def inputs(self) -> tuple[int, ...]:
        return (self.values, self.rank) if self.rank else (self.values,)

    def room(self) -> int:
        return 2 * self.convolved + 3 * self.values + self.num_heads + 2 * self.rank + self.decays


@dataclass(frozen=True, kw_only=True)
class LinearAttention(Recurrent):
    """A matrix [head_size, head_size] for each head, to which each token adds its key times its value, and which
    its query reads; what all heads read is normed together and gated by a sigmoid. Source: arXiv 2405.17381.

    forgetting  head h of H keeps e^(-forgetting * 2^(-8 (h + 1) / H)) of its matrix from one token to the next.
    activation  of queries, keys and values.
    """

    num_heads: int
    head_size: int
    forgetting: float
    activation: Activation = "silu"
    norm_eps: float = 1e-6

    @property
    def inner(self) -> int:
        """Numbers of a token's queries, and likewise of its keys, values and gates."""
        return self.num_heads * self.head_size

    @property
    def decays(self) -> tuple[float, ...]:
        """For each head the logarithm of the part that it keeps."""
        places = range(1, self.num_heads + 1)
        return tuple(-self.forgetting * 2.0 ** (-8 * place / self.num_heads) for place in places)

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The heads' matrices."""
        return ((self.num_heads, self.head_size, self.head_size),)

    def inputs(self) -> tuple[int, ...]:
        return (self.inner,)

    def room(self) -> int:
        return 5 * self.inner


@dataclass(frozen=True, kw_only=True)
class Mamba2(Recurrent):
    """A state-space mixer with one decay a head. Source: arXiv 2405.21060.

    inner = num_heads * head_size numbers a token pass it; state_size of them are kept for each.
    num_groups  heads in so many groups share the vectors that write and read the state.
    kernel     tokens that the convolution before it sees, the newest included.
    conv_bias, bias  of that convolution; of the products into and out of it.
    gate_norm  "gated": an RMS norm of y * silu(gate); "norm_then_gate": of y, then times silu(gate);
               "none": y * silu(gate). See `ops.scan.KINDS`.
    norm_groups  the norm is over each of so many equal parts of the numbers.
    step_limit  the least and the greatest step that a decay is over.
    scales     factors of the gate, of the numbers that pass, of the vectors that write and that read the
               state, and of the steps.
    """

    num_heads: int
    head_size: int
    state_size: int
    num_groups: int = 1
    kernel: int = 4
    conv_bias: bool = False
    bias: bool = False
    gate_norm: GateNorm = "gated"
    norm_groups: int = 1
    norm_eps: float = 1e-5
    step_limit: tuple[float, float] = (0.0, float("inf"))
    scales: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)

    @property
    def inner(self) -> int:
        """Numbers of a token that pass the state."""
        return self.num_heads * self.head_size

    @property
    def convolved(self) -> int:
        """Channels of the convolution: those numbers, and the vectors that write and read the state."""
        return self.inner + 2 * self.num_groups * self.state_size

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution [kernel - 1, channels], and the heads' [H, N, P]."""
        return (
            (self.kernel - 1, self.convolved),
            (self.num_heads, self.state_size, self.head_size),
        )

    def inputs(self) -> tuple[int, ...]:
        return (self.inner,)

    def room(self) -> int:
        return 2 * self.inner + 2 * self.convolved + self.num_heads


@dataclass(frozen=True, kw_only=True)
class Mamba1(Recurrent):
    """A state-space mixer with a decay of each number of the state. Source: arXiv 2312.00752.

    inner      numbers of a token that pass it; state_size of them are kept for each.
    step_rank  of the product that makes the steps.
    kernel, conv_bias, bias  as in Mamba2.
    norms      RMS norms of what makes the steps and of the vectors that write and read the state: with
               weights, without ("fixed"), or none.
    """

    inner: int
    state_size: int
    step_rank: int
    kernel: int = 4
    conv_bias: bool = False
    bias: bool = False
    norms: Literal["none", "fixed", "learned"] = "none"
    norm_eps: float = 1e-6

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution [kernel - 1, D], and the channels' [N, D]."""
        return (self.kernel - 1, self.inner), (self.state_size, self.inner)

    def inputs(self) -> tuple[int, ...]:
        return self.inner, self.step_rank

    def room(self) -> int:
        return 4 * self.inner + self.step_rank + 2 * self.state_size


@dataclass(frozen=True, kw_only=True)
class HeadMamba(Recurrent):
    """A state-space mixer with one decay a head, whose steps and vectors are made behind the convolution.

    num_heads, head_size, state_size, kernel  as in Mamba2, in one group; step_rank as in Mamba1.
    norm_eps  of norms of the vectors that write and read the state and of what makes the steps.
    """

    num_heads: int
    head_size: int
    state_size: int
    step_rank: int
    kernel: int
    norm_eps: float = 1e-6

    @property
    def inner(self) -> int:
        """Numbers of a token that pass the state."""
        return self.num_heads * self.head_size

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution [kernel - 1, inner], and the heads' [H, N, P]."""
        state = (self.num_heads, self.state_size, self.head_size)
        return (self.kernel - 1, self.inner), state

    def inputs(self) -> tuple[int, ...]:
        return self.inner, self.step_rank

    def room(self) -> int:
        return 4 * self.inner + self.step_rank + 2 * self.state_size + self.num_heads


@dataclass(frozen=True, kw_only=True)
class TimeMix(Recurrent):
    """Values of `inner` channels, each weighed by e to its key and forgotten by and by; see `ops.time_mix.WKV`.

    Products are of a token's input blended with the one before it. Source: arXiv 2305.13048, section 3.1.
    """

    hidden_size: int
    inner: int

    @property
    def places(self) -> dict[str, int]:
        """Which of the two norms of a layer of the checkpoint is before it, for `names.Rule`."""
        return {"turn": 1}

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The input of the token before [1, C]; sums, weights and their largest exponent [3, inner]."""
        return (1, self.hidden_size), (3, self.inner)

    def inputs(self) -> tuple[int, ...]:
        return (self.inner,)

    def room(self) -> int:
        return 3 * self.hidden_size + 3 * self.inner


@dataclass(frozen=True, kw_only=True)
class ChannelMix(Recurrent):
    """A feed-forward part `inner` wide with squared relu and a gate, of inputs blended as in TimeMix."""

    hidden_size: int
    inner: int

    @property
    def places(self) -> dict[str, int]:
        """As in TimeMix."""
        return {"turn": 2}

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The input of the token before [1, C]."""
        return ((1, self.hidden_size),)

    def inputs(self) -> tuple[int, ...]:
        return (self.inner,)

    def room(self) -> int:
        return 3 * self.hidden_size + self.inner


@dataclass(frozen=True, kw_only=True)
class MatrixMemory(Recurrent):
    """A matrix [key_size, value_size] for each head, and sums of its keys, by the rule of `ops.matrix_memory`; what
    is read is normed over each head and gated by a sigmoid. Source: arXiv 2503.13427.

    cap       the gates x of what enters and of what stays are cap * tanh(x / cap).
    eps       added to what is divided by.
    """

    num_heads: int
    key_size: int
    value_size: int
    cap: float = 15.0
    eps: float = 1e-6
    norm_eps: float = 1e-6

    @property
    def inner(self) -> int:
        """Numbers of a token's values, and of the result."""
        return self.num_heads * self.value_size

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The heads' matrices with sums of keys behind them, and a row for the largest exponent."""
        return ((self.num_heads, self.key_size + 1, self.value_size + 1),)

    def inputs(self) -> tuple[int, ...]:
        return (self.inner,)

    def room(self) -> int:
        return self.num_heads * (2 * self.key_size + 2) + 3 * self.inner


@dataclass(frozen=True, kw_only=True)
class GatedLru(Recurrent):
    """A convolution and a recurrence of each of `inner` numbers, beside an activated gate. Source: arXiv 2402.19427.

    num_heads   equal parts of the numbers, of which each makes the gates that feed and keep its states.
    kernel      tokens that the convolution sees, the newest included.
    activation  of what the result is multiplied with.
    """

    inner: int
    num_heads: int
    kernel: int = 4
    activation: Activation = "gelu_tanh"

    def states(self) -> tuple[tuple[int, ...], ...]:
        """The window of the convolution [kernel - 1, inner], and the numbers' states [1, inner]."""
        return (self.kernel - 1, self.inner), (1, self.inner)

    def inputs(self) -> tuple[int, ...]:
        return self.inner, self.inner // self.num_heads

    def room(self) -> int:
        return 6 * self.inner
