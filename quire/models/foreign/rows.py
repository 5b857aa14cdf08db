"""Which operations of torch keep a step's tokens apart, and which of those may round by their neighbours.

A model is run on packed tokens of several sequences: whatever mixes them outside attention is refused.
"""

from __future__ import annotations

from quire.models.foreign.program import Register, Step, registers_of

VIEWS = frozenset(
    (
        "view", "_unsafe_view", "transpose", "t", "permute", "unsqueeze", "squeeze", "expand", "slice",
        "select", "split", "split_with_sizes", "unbind", "alias", "detach", "unflatten", "lift_fresh",
    )
)  # fmt: skip
"""Operations of torch that only look at memory in another way."""

_RESHAPED = VIEWS | {"reshape", "flatten"}
_EXACT = [
    "add",
    "sub",
    "mul",
    "div",
    "neg",
    "abs",
    "sqrt",
    "reciprocal",
    "square",
    "relu",
    "clamp",
    "clamp_min",
    "clamp_max",
    "minimum",
    "maximum",
    "where",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "logical_and",
    "logical_or",
    "logical_not",
    "bitwise_and",
    "bitwise_or",
    "bitwise_not",
    "_to_copy",
    "clone",
    "copy",
    "zeros_like",
    "ones_like",
    "full_like",
    "zeros",
    "ones",
    "full",
    "scalar_tensor",
    "lift_fresh_copy",
    "floor",
    "ceil",
    "round",
    "trunc",
    "sign",
    "cat",
    "stack",
    "constant_pad_nd",
    "repeat",
    "gather",
    "masked_fill",
    "rsub",
    "remainder",
    "floor_divide",
    "empty_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "fill",
    "zero",
]
_SMOOTH = ["exp", "tanh", "erf", "rsqrt", "cos", "sin", "log", "expm1", "log1p"]
"""Functions that torch computes alike wherever an element stands; the reference provider relies on it."""
_UNEVEN = [
    "silu",
    "gelu",
    "sigmoid",
    "softplus",
    "pow",
    "elu",
    "leaky_relu",
    "mish",
    "hardtanh",
    "hardswish",
    "softsign",
    "log_sigmoid",
]
"""Functions whose last elements torch may compute otherwise than those before."""
_ALONG = [
    "sum",
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "argmax",
    "var",
    "std",
    "linalg_vector_norm",
    "_softmax",
    "_log_softmax",
    "topk",
    "sort",
    "cumsum",
    "logsumexp",
    "any",
    "all",
    "prod",
]
_PRODUCTS = ["mm", "bmm", "addmm", "baddbmm"]
_FILLS = [
    "zeros",
    "ones",
    "full",
    "zeros_like",
    "ones_like",
    "full_like",
    "new_zeros",
    "new_ones",
    "new_full",
    "new_empty",
    "empty_like",
]


def complaint(step: Step, registers: list[Register]) -> str | None:
    """Why a step of torch cannot be carried out on packed tokens; None if it can."""
    name = short(step)
    inputs = [registers[number] for number in registers_of(step.args)]
    outs = [registers[number] for number in step.outs]
    for one in outs:
        growing = [pair for pair in one.shape if pair[0]]
        if len(growing) > 1:
            return f"{step.op} makes a table of tokens by tokens"
        if any(c for _, c in growing):
            return f"{step.op} cuts or adds tokens"
    axes = [one.token_axis for one in inputs]
    if not any(axis is not None for axis in axes):
        if any(one.token_axis is not None for one in outs) and name not in _FILLS:
            return f"{step.op} counts tokens without their positions" if name == "arange" else None
        return None
    if name in _RESHAPED or name in ("cat", "stack", "gather") or name in _ALONG:
        return _along(step, name, inputs, outs)
    if name in _PRODUCTS:
        first, second = inputs[-2], inputs[-1]
        if first.shape[-1][0] or second.shape[-2][0]:
            return f"{step.op} sums over tokens"
        return None
    if name in _EXACT or name in _SMOOTH or name in _UNEVEN:
        return None
    return f"of {step.op} it is not known whether it keeps tokens apart"


def is_uneven(step: Step, registers: list[Register]) -> bool:
    """Whether a row of the result may depend on its batch in the last bits."""
    name = short(step)
    if name == "pow":
        return step.args[1] not in (2, 2.0, 3, 3.0)
    return name in _UNEVEN or name in _PRODUCTS


def short(step: Step) -> str:
    """The name of torch's operation without its overload; of one in place that of the other."""
    name = step.op.split(".")[1]
    return name.removesuffix("_") if not name.startswith("_") else name


def _along(step: Step, name: str, inputs: list[Register], outs: list[Register]) -> str | None:
    """For operations along an axis: whether that is the tokens'."""
    axis = inputs[0].token_axis
    if axis is None:
        axis = next(one.token_axis for one in inputs if one.token_axis is not None)
    if name in ("slice", "select", "split", "split_with_sizes", "unbind"):
        place = {"split": 2, "split_with_sizes": 2}.get(name, 1)
        dim = _dim(step, place, 0)
        if name == "slice" and outs[0].shape == inputs[0].shape:
            return None
    elif name in ("cat", "stack"):
        dim = _dim(step, 1, 0)
        if name == "stack":
            return None  # an axis of its own
    elif name in _RESHAPED:
        return None
    else:
        last = -1 if name in ("topk", "sort") else None
        dim = _dim(step, 2 if name == "topk" else 1, last)
    dims = dim if isinstance(dim, list) else [dim]
    rank = len(inputs[0].shape)
    if any(one is None or one % rank == axis for one in dims) or not dims:
        return f"{step.op} goes along the tokens"
    return None


def _dim(step: Step, place: int, default: int | None) -> int | list[int] | None:
    if "dim" in step.kwargs:
        found: int | list[int] | None = step.kwargs["dim"]
        return found
    return step.args[place] if len(step.args) > place else default
