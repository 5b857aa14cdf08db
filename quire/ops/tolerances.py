"""How far a provider may be from the formula computed in float64, by operation and dtype.

Leaves equality of bits (of rows, of fused and separate operations) to the tests that ask for it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """|got - want| <= absolute + relative * |want|, for inputs and results of about unit variance."""

    relative: float
    absolute: float


EXACT = Tolerance(0.0, 0.0)

_ONE_ROUNDING = {
    "float32": Tolerance(1e-6, 1e-6),
    "bfloat16": Tolerance(
        2**-8, 1e-6
    ),  # half a unit in the last place of 8 bits, and float32's own
    "float16": Tolerance(2**-11, 1e-6),
}
_TRANSCENDENTAL = {
    "float32": Tolerance(3e-6, 1e-6),
    "bfloat16": Tolerance(2**-8 + 3e-6, 1e-6),
    "float16": Tolerance(2**-11 + 3e-6, 1e-6),
}
_PRODUCT = {
    "float32": Tolerance(1e-5, 1e-5),
    "bfloat16": Tolerance(2**-8, 1e-5),
    "float16": Tolerance(2**-11, 1e-5),
}
_PRODUCT_DELTA = {  # a product up to 8 may be rounded before a delta cancels it
    "float32": Tolerance(1e-5, 1e-5),
    "bfloat16": Tolerance(2**-7, 2**-6),
    "float16": Tolerance(2**-10, 2**-9),
}
_ATTENTION = {
    "float32": Tolerance(1e-5, 1e-5),
    "bfloat16": Tolerance(2**-8 + 1e-5, 1e-5),
    "float16": Tolerance(2**-11 + 1e-5, 1e-5),
}
_NORMED_AND_TURNED = {  # normed numbers up to 5 are rounded before their products may cancel
    "float32": Tolerance(3e-6, 3e-6),
    "bfloat16": Tolerance(2**-8, 2**-6),
    "float16": Tolerance(2**-11, 2**-9),
}
_ATTENTION_ROUNDED = {  # bf16 weights of 2^-9 relative error times values up to about 4
    **_ATTENTION,
    "bfloat16": Tolerance(2**-8 + 1e-5, 2**-7),
}
_ROUTE = dict.fromkeys(("float32", "bfloat16", "float16"), Tolerance(2e-6, 1e-7))
_EXPERTS = {  # gate and up are rounded, and so is their product, before they are summed up again
    "float32": Tolerance(1e-5, 2e-5),
    "bfloat16": Tolerance(2**-7, 2**-5),
    "float16": Tolerance(2**-10, 2**-8),
}
_STATES = {  # sums over the tokens behind: errors of float32 come together
    "float32": Tolerance(1e-5, 1e-5),
    "bfloat16": Tolerance(2**-8, 1e-5),
    "float16": Tolerance(2**-11, 1e-5),
}
_STREAMS = {  # sums of a few products, which may nearly cancel, and one rounding
    "float32": Tolerance(1e-6, 2e-6),
    "bfloat16": Tolerance(2**-8, 1e-5),
    "float16": Tolerance(2**-11, 1e-5),
}
_EXACT = dict.fromkeys(("float32", "bfloat16", "float16"), EXACT)

TOLERANCES: dict[str, dict[str, Tolerance]] = {
    "embedding": _ONE_ROUNDING,
    "put_rows": _EXACT,
    "linear": _PRODUCT,
    "linear with delta": _PRODUCT_DELTA,
    "rms_norm": _TRANSCENDENTAL,
    "add_rms_norm": _TRANSCENDENTAL,
    "add": _ONE_ROUNDING,
    "add_row": _ONE_ROUNDING,
    "torch": _EXACT,
    "add_gated": _TRANSCENDENTAL,
    "tell_keys": _TRANSCENDENTAL,
    "mul_softplus": _TRANSCENDENTAL,
    "scale": _ONE_ROUNDING,
    "layer_norm": _TRANSCENDENTAL,
    "act": _TRANSCENDENTAL,
    "act_mul": _TRANSCENDENTAL,
    "soft_cap": _TRANSCENDENTAL,
    "clamp": _EXACT,
    "mix_streams": _STREAMS,
    "correct_streams": _STREAMS,
    "match_size": _TRANSCENDENTAL,
    "largest": _STREAMS,
    "stream_shares": _TRANSCENDENTAL,
    "read_streams": _STREAMS,
    "write_streams": _STREAMS,
    "limit_gated": _EXACT,
    "swiglu_clamped": _TRANSCENDENTAL,
    "multiply": _ONE_ROUNDING,
    "xielu": _TRANSCENDENTAL,
    "known_ids": _EXACT,
    "weigh_chosen": _ONE_ROUNDING,
    "weigh_sets": _ONE_ROUNDING,
    "add_identity": _TRANSCENDENTAL,
    "to_float32": _EXACT,
    "take_rows": _EXACT,
    "rope": _TRANSCENDENTAL,
    "qk_rope": _NORMED_AND_TURNED,
    "paged_attention": _ATTENTION,
    "paged_attention, rounded weights": _ATTENTION_ROUNDED,
    "picked_attention": _ATTENTION,
    "block_attention": _ATTENTION,
    "pick_blocks": _EXACT,
    "pick_tokens": _EXACT,
    "compressed_attention": _ATTENTION,
    "copy_blocks": _EXACT,
    "route": _ROUTE,
    "route_sparse": _ROUTE,
    "route_root": _ROUTE,
    "route_tokens": _ROUTE,
    "experts": _EXPERTS,
    "rms_norm_gated": _TRANSCENDENTAL,
    "mul_sigmoid": _TRANSCENDENTAL,
    "delta_rule": _STATES,
    "short_conv": _STATES,
    "causal_conv": _STATES,
    "ssd_scan": _STATES,
    "selective_scan": _STATES,
    "group_norm_gated": _STATES,
    "token_shift": _STATES,
    "wkv": _STATES,
    "gated_lru": _STATES,
    "matrix_memory": _STATES,
}
"""Float32 sums of a few thousand terms keep about 1e-6; one rounding to bfloat16 loses up to 2^-9 of
the value, and the bounds above leave as much again for values next to a power of two."""
