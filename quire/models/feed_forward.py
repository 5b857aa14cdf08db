"""What a feed-forward part is, as frozen data: part of a description, `models.spec`.

What they compute is in `layers.mlp` and `layers.moe`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from typing import Literal

from quire.protocol.errors import ModelLoadError

_STEPS = 100  # each of which leaves less than e^-1 of what is missing
Activation = Literal["silu", "gelu_tanh", "gelu", "relu", "relu2", "xielu", "swiglu_clamped"]
"""The last one has a gate: `ops.moe.ExpertSizes` says what it is. "xielu" has learned numbers, and no gate."""
Scoring = Literal["softmax", "sigmoid", "logit", "sparse", "softplus_root"]


@dataclass(frozen=True, kw_only=True)
class Dense:
    """Feed-forward part: down(act(gate(x)) * up(x)), or down(act(up(x))) if not `gated`.

    `width` is F. gate_scale, up_scale: factors of gate(x) and of up(x), if `gated`.
    sparsity: the part of the gates, if they are distributed normally, that becomes zero.
    down_bias: of a gated part without other biases.
    inner_eps: of an RMS norm of what is multiplied with down, if `gated`; 0 is none.
    limit: of "swiglu_clamped".
    """

    width: int
    activation: Activation = "silu"
    bias: bool = False
    down_bias: bool = False
    gated: bool = True
    gate_scale: float = 1.0
    up_scale: float = 1.0
    sparsity: float = 0.0
    inner_eps: float = 0.0
    limit: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Moe:
    """Feed-forward part of `num_experts` of `width`, of which a token passes `top_k`.

    gated    experts and the shared part are, as `Dense` is.
    limit    of "swiglu_clamped"; and of another activation what gate and up are kept below, 0 is none.
    limit_after  that limit is of the gate's activation, which is SiLU then, not of the gate.
    shared_limit  of the part that all tokens pass, where it differs from the others'.
    bias     experts have biases.
    sum_bias  a bias is added to what the experts of a token make together, whatever their weights.
    scoring, normalize, scale  as in `ops.moe.RouteRule`, and so are groups, top_groups, group_best, jitter.
    router_bias   the router has a bias.
    router_float32  the router computes in float32, whatever the model's dtype: choices are near ties.
    choice_bias   a bias of each expert counts in the choice, not in the weights.
    shared_width  of a part that all tokens pass; 0 is none.
    shared_gate   what that part makes is weighed by the sigmoid of a product of its own.
    num_identity  experts beside those, without weights, that give what they get.
    hashed        a token's experts are those of its row in a table; the router only weighs them.
    latent        routed experts take and give so many numbers, between two products; 0: as many as the layer.
    norm_eps      not None: routed and shared parts have norms of their own around them, and so has the router,
                  whose weights have a learned factor for each expert: `layers.moe.NormedParts`.
    weigh_inputs  a weight multiplies what its expert gets, not what it makes.

    Raises ModelLoadError where more experts are chosen than there are, or none.
    """

    num_experts: int
    top_k: int
    width: int
    activation: Activation = "silu"
    gated: bool = True
    limit: float = 0.0
    limit_after: bool = False
    shared_limit: float | None = None
    bias: bool = False
    sum_bias: bool = False
    scoring: Scoring = "softmax"
    normalize: bool = True
    scale: float = 1.0
    groups: int = 1
    top_groups: int = 1
    group_best: int = 1
    jitter: float = 0.0
    router_bias: bool = False
    router_float32: bool = False
    choice_bias: bool = False
    shared_width: int = 0
    shared_gate: bool = False
    weigh_inputs: bool = False
    norm_eps: float | None = None
    latent: int = 0
    hashed: bool = False
    num_identity: int = 0

    def gate_limit(self, limit: float) -> float:
        """What the gate is kept below, so that it or its activation is below `limit`; 0 is nothing.

        x * sigmoid(x) grows where it is not below 0; x = limit * (1 + e^-x) draws near at every step.
        """
        bound = limit
        for _ in range(_STEPS if self.limit_after and limit else 0):
            bound = limit * (1.0 + exp(-bound))
        return bound

    @property
    def num_choices(self) -> int:
        """Experts that the router chooses among."""
        return self.num_experts + self.num_identity

    def __post_init__(self) -> None:
        if not 1 <= self.top_k <= self.num_choices:
            raise ModelLoadError(
                f"config.json: sends a token to {self.top_k} of {self.num_choices} experts; it must be at least one "
                f"and at most all of them"
            )


FeedForward = Dense | Moe
