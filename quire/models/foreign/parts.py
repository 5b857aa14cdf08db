"""Finds in a model of Transformers what is one of our operations, by comparing numbers, and puts ours there.

A norm, an activation or a turn by positions is ours if both give the same for random numbers.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quire.models.foreign.evaluate import evaluate
from quire.models.foreign.trace import CannotRunError, Recording, Ref, for_real
from quire.ops.elementwise import ACTIVATIONS
from quire.ops.rope import rope

logger = logging.getLogger(__name__)

_EXACT = 2e-5  # of numbers near one in float32

_HARMLESS = frozenset(
    (
        *("position_ids", "output_attentions", "use_cache", "cache_position", "past_key_values"),
        *("return_dict", "output_hidden_states", "layer_idx", "is_causal", "position_embeddings"),
        *("output_router_logits", "logits_to_keep", "dropout", "training", "cu_seq_lens_q"),
    )
)
"""What attention functions are told and need not know."""


@dataclass(frozen=True)
class MaskTag:
    """What stands for an attention mask: causal, within a window that counts the query itself if there is one.

    both_ways  it hides nothing.
    """

    window: int | None = None
    both_ways: bool = False

    def __getattr__(self, name: str) -> Any:
        raise CannotRunError("its code looks into its attention mask")


def recognise(model: nn.Module, recording: Callable[[], Recording]) -> dict[str, dict[str, Any]]:
    """Gives norms and activations a forward that writes down ours. What was found, by module name.

    recording  the pass that is being written down when the forward runs.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if next(module.children(), None) is not None:
            continue
        norm = _norm(module)
        if norm is not None:
            found[name] = norm
            module.forward = _norm_forward(name, module, norm, recording)
            continue
        act = _activation(module)
        if act is not None:
            found[name] = {"act": act}
            module.forward = _act_forward(act, recording)
    return found


def _norm_forward(
    name: str, module: nn.Module, norm: dict[str, Any], recording: Callable[[], Recording]
) -> Callable[..., torch.Tensor]:
    weight = getattr(module, "weight", None)
    bias = getattr(module, "bias", None)

    def forward(x: torch.Tensor) -> torch.Tensor:
        now = recording()
        out = now.like(x)
        own = f"{name}.weight" if weight is None else now.name_of(weight)
        if norm["kind"] == "rms":
            return now.step("rms_norm", out, x, own, norm["eps"])
        return now.step("layer_norm", out, x, own, now.name_of(bias), norm["eps"])

    return forward


def _act_forward(
    act: str, recording: Callable[[], Recording]
) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda x: recording().act(act, x)


def _norm(module: nn.Module) -> dict[str, Any] | None:
    """The norm that a module is, found by trying; None if it is none of ours."""
    shapes = {name: tuple(one.shape) for name, one in module.named_parameters()}
    if "norm" not in type(module).__name__.lower() or next(module.buffers(), None) is not None:
        return None
    if set(shapes) - {"weight", "bias"} or any(len(shape) != 1 for shape in shapes.values()):
        return None
    values = vars(module)
    epsilons = [one for key, one in values.items() if "eps" in key and isinstance(one, float)]
    width = next(iter(shapes.values()), (64,))[0]
    real = _with_numbers(module)
    for eps in epsilons:
        for kind, add_one in (("rms", False), ("rms", True), ("layer", False)):
            if not shapes and (add_one or kind == "layer"):
                continue
            if _is_norm(real, kind, add_one, eps, width):
                return {"kind": kind, "add_one": add_one, "eps": eps, "width": width}
    return None


def _with_numbers(module: nn.Module) -> nn.Module:
    """A copy with random float32 parameters."""
    memo = {id(one): one for one in module.parameters()}
    copy = deepcopy(module, memo)
    copy._parameters = {
        name: None if one is None else nn.Parameter(torch.rand(tuple(one.shape)) + 0.5)
        for name, one in module._parameters.items()
    }
    return copy


def _is_norm(module: nn.Module, kind: str, add_one: bool, eps: float, width: int) -> bool:
    """Whether it gives the norm of large and of small numbers, where eps counts."""
    weight: torch.Tensor | float = getattr(module, "weight", 1.0)
    bias: torch.Tensor | None = getattr(module, "bias", None)
    for scale in (1.0, eps**0.5):
        x = torch.randn(1, 3, width) * scale + 0.3 * scale
        try:
            given = module(x)
        except Exception as error:  # what was tried may want other arguments
            logger.debug("%r is not tried as a norm: %s", module, error)
            return False
        centred = x - x.mean(-1, keepdim=True) if kind == "layer" else x
        wanted = centred * torch.rsqrt(centred.pow(2).mean(-1, keepdim=True) + eps)
        wanted = wanted * (1.0 + weight if add_one else weight)
        if kind == "layer" and bias is not None:
            wanted = wanted + bias
        if not isinstance(given, torch.Tensor) or given.shape != x.shape:
            return False
        if not torch.allclose(given.float(), wanted, atol=_EXACT, rtol=_EXACT):
            return False
    return True


def _activation(module: nn.Module) -> str | None:
    """The activation of ours that a module is; None if it is none."""
    if next(module.parameters(), None) is not None or next(module.buffers(), None) is not None:
        return None
    if not type(module).__module__.startswith(("transformers.activations", "torch.nn")):
        return None
    x = torch.linspace(-8.0, 8.0, 401)
    try:
        given = module(x)
    except Exception as error:  # what was tried may want other arguments
        logger.debug("%r is not tried as an activation: %s", module, error)
        return None
    if not isinstance(given, torch.Tensor) or given.shape != x.shape:
        return None
    for name, function in ACTIVATIONS.items():
        if torch.allclose(given, function(x.clone()), atol=1e-6, rtol=1e-6):
            return name
    return None


def attend(
    recording: Recording,
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Any = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Writes down an attention: query [1, H, T, D], key and value [1, K, T, D]; gives [1, T, H, D]."""
    for name, given in others.items():
        if given is not None and name not in _HARMLESS:
            raise CannotRunError(f"its attention takes {name}, which ours does not have")
    causal = others.get("is_causal", getattr(module, "is_causal", True))
    both_ways = isinstance(attention_mask, MaskTag) and attention_mask.both_ways
    if (causal is False) is not both_ways or isinstance(attention_mask, torch.Tensor):
        raise CannotRunError("its attention has a mask of its own, other than causal or a window")
    windows = {sliding_window or None}
    if isinstance(attention_mask, MaskTag):
        windows = {attention_mask.window} if sliding_window is None else windows
        if sliding_window is not None and attention_mask.window not in (None, sliding_window):
            raise CannotRunError(
                f"an attention has the windows {sliding_window} and {attention_mask.window}"
            )
    window = next(iter(windows))
    _, num_heads, num_tokens, size = query.shape
    width = value.shape[-1]
    if key.shape[2] != num_tokens or value.shape[1] != key.shape[1] or key.shape[3] != size:
        raise CannotRunError("its attention has keys that are not those of the tokens themselves")
    if width > size:
        raise CannotRunError(
            f"its values have {width} numbers a head, more than the {size} of keys"
        )
    if width < size:
        value = nn.functional.pad(value, (0, size - width))
    sinks = recording.name_of(s_aux)
    if s_aux is not None and sinks is None:
        raise CannotRunError("the sinks of its attention are not a weight")
    recording.attention.append(
        {
            "num_heads": num_heads,
            "num_kv_heads": key.shape[1],
            "head_size": size,
            "scale": float(size**-0.5 if scaling is None else scaling),
            "window": window,
            "softcap": float(softcap or 0.0),
            "sinks": sinks,
            "both_ways": both_ways,
        }
    )
    out = recording.empty(1, num_tokens, num_heads, size, dtype=query.dtype)
    index = len(recording.attention) - 1
    recording.step("attention", out, query, key, value, index)
    return (out[..., :width] if width < size else out), None


def _causal_mask(config: Any, *args: Any, **kwargs: Any) -> MaskTag:
    _no_more(kwargs)
    return MaskTag()


def _window_mask(config: Any, *args: Any, **kwargs: Any) -> MaskTag:
    _no_more(kwargs)
    return MaskTag(window=config.sliding_window)


def _no_mask_at_all(config: Any, *args: Any, **kwargs: Any) -> MaskTag:
    _no_more(kwargs)
    return MaskTag(both_ways=True)


def _no_more(kwargs: dict[str, Any]) -> None:
    for name in ("or_mask_function", "and_mask_function", "block_sequence_ids"):
        if kwargs.get(name) is not None:
            raise CannotRunError("its mask is not causal or a window alone")


def _no_mask(*args: Any, **kwargs: Any) -> Any:
    raise CannotRunError("its mask is neither causal nor a window")


_MASKS: dict[str, Callable[..., Any]] = {
    "create_causal_mask": _causal_mask,
    "create_sliding_window_causal_mask": _window_mask,
    "create_chunked_causal_mask": _no_mask,
    "create_bidirectional_mask": _no_mask_at_all,
    "create_bidirectional_sliding_window_mask": _no_mask,
    "create_masks_for_generate": _no_mask,
}


@contextmanager
def our_functions(model: nn.Module, recording: Recording) -> Iterator[None]:
    """A block in which the model's files have our masks and our turn by positions."""
    files = {type(module).__module__ for module in model.modules()}
    old: list[tuple[Any, str, Any]] = []
    for name in files:
        file = sys.modules[name]
        for function, ours in _MASKS.items():
            if hasattr(file, function):
                old.append((file, function, getattr(file, function)))
                setattr(file, function, ours)
        turn = getattr(file, "apply_rotary_pos_emb", None)
        if turn is not None and not name.startswith("torch."):
            old.append((file, "apply_rotary_pos_emb", turn))
            file.apply_rotary_pos_emb = _Turn(turn, recording)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for file, function, was in old:
            setattr(file, function, was)


class _Turn:
    """In the place of a model's own function of (q, k, cos, sin)."""

    def __init__(self, original: Callable[..., Any], recording: Recording) -> None:
        self._original = original
        self._recording = recording
        self._signature = inspect.signature(original)
        self._known: dict[Any, tuple[bool, str] | None] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        given = list(bound.arguments.values())
        tensors = given[:4]
        if not all(isinstance(one, torch.Tensor) for one in tensors):
            return self._original(*args, **kwargs)
        q, k, cos, sin = tensors
        rest = tuple(one for one in given[4:] if one is not None)
        key = (self._recording.new(cos), self._recording.new(sin), q.shape[-1], rest)
        if key not in self._known:
            self._known[key] = self._find(q, cos, sin, given[4:])
        form = self._known[key]
        if form is None or k.shape[-1] != q.shape[-1]:
            return self._original(*args, **kwargs)
        axis = list(q.shape).index(cos.shape[-2], 1)
        return tuple(
            self._recording.step(
                "rope",
                self._recording.like(x),
                *(x, cos, sin, axis, form[0], form[1]),
            )
            for x in (q, k)
        )

    def _find(
        self, q: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, rest: list[Any]
    ) -> tuple[bool, str] | None:
        """(interleaved, where the angles of pairs are in cos and sin); None if it is no turn of ours."""
        numbers = [self._recording.ref(one) for one in (cos, sin)]
        if cos.dim() != 3 or not all(isinstance(one, Ref) for one in numbers):
            return None
        with for_real():
            real = evaluate(self._recording, [one.number for one in numbers])
            if real is None:
                return None
            c, s = (one[:, 1:9].float() for one in real)
            shape = [8 if size == cos.shape[1] else size for size in q.shape]
            x = torch.randn(shape)
            try:
                turned = self._original(x.clone(), x.clone(), c, s, *rest)[0]
            except Exception as error:  # what was tried may want other arguments
                logger.debug("%r is not tried as a turn: %s", self._original, error)
                return None
            token_axis = list(q.shape).index(cos.shape[1], 1)
            heads = x[0].transpose(0, token_axis - 1)  # [8, H, D]
            wanted = turned[0].transpose(0, token_axis - 1)
            for interleaved in (False, True):
                for where in ("first", "even", "all"):
                    table = torch.cat([pairs(c[0], where), pairs(s[0], where)], dim=-1)
                    if table.shape[1] > q.shape[-1]:
                        continue
                    made = rope(heads.clone(), torch.arange(8), table, interleaved)
                    if torch.allclose(made, wanted, atol=_EXACT, rtol=_EXACT):
                        return interleaved, where
        return None


def pairs(angles: torch.Tensor, where: str) -> torch.Tensor:
    """The cosines or sines of pairs [..., rot / 2] from what a model has of them."""
    if where == "first":
        return angles[..., : angles.shape[-1] // 2]
    return angles[..., ::2] if where == "even" else angles
