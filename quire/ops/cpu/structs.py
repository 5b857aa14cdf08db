"""The one table of native operations: the fields of each argument struct.

`tools/native_header.py` writes csrc/include/quire_ops.h from it, and the ctypes classes are made
here, so that both sides agree. Loading the library is `ops.cpu.library`.
"""

from __future__ import annotations

import ctypes
import zlib
from itertools import groupby
from textwrap import wrap

_MEANING = 2
"""Raised with every change of a struct's meaning that its fields do not show."""

DTYPES = {"float32": 0, "bfloat16": 1, "float16": 2}
"""Number types as the kernels number them."""

CACHE_FORMATS = {
    "plain": 0,
    "fp8": 1,
    "fp8_per_token_head": 2,
    "int8_per_token_head": 3,
    "fp8_e5m2": 4,
}
"""Stored forms of keys and values likewise, by the names of `ops.formats`."""

ACTS = {"silu": 0, "gelu": 1, "gelu_tanh": 2, "relu": 3, "relu2": 4}
"""Activations likewise."""

EXPERT_ACTS = {**ACTS, "swiglu_clamped": 5}
"""Those of `experts`."""

SCORINGS = {"softmax": 0, "sigmoid": 1, "sparse": 2, "logit": 3}
"""Ways to score experts likewise."""

TYPES: dict[str, tuple[str, type[ctypes._SimpleCData[int]] | type[ctypes._SimpleCData[float]]]] = {
    "const": ("const void*", ctypes.c_void_p),  # type: ignore[dict-item]
    "mut": ("void*", ctypes.c_void_p),  # type: ignore[dict-item]
    "i64": ("int64_t", ctypes.c_int64),
    "i32": ("int32_t", ctypes.c_int32),
    "f32": ("float", ctypes.c_float),
}
"""Kinds of fields: their C type and ctypes'. `const` and `mut` are pointers to what is read or written."""

OPERATIONS: dict[str, str] = {
    # x [rows, K] times packed weights, + delta [rows, N] float32 + bias [N] float32, null for none; out is
    # of x's type, or float32 if is_wide
    "linear": "const:x const:weight const:scales const:bias const:delta mut:out "
    "i64:rows i64:x_stride i64:out_stride i64:delta_stride i64:N i64:K "
    "i32:dtype i32:format i32:group i32:is_wide",
    # weight [N, K] as stored to the layout of `linear`
    "pack_linear": "const:weight mut:out i64:N i64:K i64:stride i32:dtype i32:format",
    # rows of a table that a `linear` with the same weight has packed
    "take_packed": "const:table const:chosen mut:out i64:count i64:rows i64:width i64:out_stride "
    "f32:scale i32:dtype",
    # the same with weights of fewer bits, order int32 [K] or null for none; and codes [N, K] of one
    # byte, scales and zeros [N, groups] to its layout
    "linear_quantized": "const:x const:weight const:order const:bias const:delta mut:out "
    "i64:rows i64:x_stride i64:out_stride i64:delta_stride i64:N i64:K "
    "i32:dtype i32:format i32:group i32:is_wide",
    "pack_quantized": "const:codes const:scales const:zeros mut:out i64:N i64:K i64:stride "
    "i32:format i32:group f32:step i32:shift",
    # weight [N, K] in super-blocks of one kind to blocks of 32 columns from `first` on, which begin
    # `place` bytes after out; codes [N, K] and steps [N, K / 16] int8, minima likewise uint8, factors
    # and floors [N, K / 256] float32
    "pack_super": "const:codes const:factors const:floors const:steps const:minima mut:out i64:N i64:K "
    "i64:stride i64:first i64:place i32:kind i32:format",
    # the top_k best of E logits a row, and what experts with packed weights make of rows; biases are
    # float32 [E, padded columns], null for none; gate and up, two halves, take
    # turns by blocks of columns; one half is up alone
    "route": "const:logits const:bias mut:ids mut:weights i64:rows i64:E i64:stride i64:top_k "
    "i64:groups i64:top_groups i64:group_best f32:scale f32:jitter i32:scoring i32:normalize "
    "i32:dtype i32:reserved",
    "experts": "const:x const:ids const:weights const:gate_up const:down const:gate_up_bias "
    "const:down_bias mut:out i64:rows i64:x_stride i64:out_stride i64:top_k i64:E i64:C i64:F "
    "i64:gate_up_bytes i64:down_bytes f32:limit i32:act i32:dtype i32:format i32:group "
    "i32:weigh_inputs i32:halves f32:gate_limit",
    # weight [N, K] to such codes, scales and zeros; limits [N, groups] or null
    "round_weight": "const:weight const:limits mut:codes mut:scales mut:zeros "
    "i64:N i64:K i64:stride i32:dtype i32:format i32:group i32:reserved",
    # scratch memory for later operations; failed is int32, 1 where there is none
    "reserve": "mut:failed i64:common_bytes i64:own_bytes",
    # what the machine can do: bytes read in order, and dot products of registers
    "probe_read": "const:data mut:out i64:bytes",
    "probe_dot": "mut:out i64:steps i32:dtype i32:reserved",
    # norms over the last axis of x [rows, heads, C]; weight [C] float32, with add_rms_norm of
    # residual += x; layer_norm's weight and bias, null for none, lie weight_head apart by head
    "rms_norm": "const:x const:weight mut:out i64:rows i64:heads i64:C i64:x_stride i64:x_head "
    "i64:out_stride i64:out_head f32:eps i32:dtype",
    "add_rms_norm": "const:x mut:residual const:weight mut:out i64:rows i64:C i64:x_stride "
    "i64:residual_stride i64:out_stride f32:eps i32:dtype",
    "layer_norm": "const:x const:weight const:bias mut:out i64:rows i64:heads i64:C i64:x_stride "
    "i64:x_head i64:out_stride i64:out_head i64:weight_head f32:eps i32:dtype",
    # x [rows, heads, D] in place, positions [rows] int64, table [max_len, rot] float32; qk_rope
    # norms heads below q_heads by q_weight [D], the others by k_weight [D], both float32
    "rope": "mut:x const:positions const:table i64:rows i64:heads i64:stride i64:head i64:rot "
    "i64:max_len i32:interleaved i32:dtype",
    "qk_rope": "mut:x const:q_weight const:k_weight const:positions const:table i64:rows "
    "i64:heads i64:q_heads i64:D i64:stride i64:head i64:rot i64:max_len f32:eps "
    "i32:interleaved i32:dtype i32:reserved",
    # element by element, rows of `width`; act_mul's x is [rows, 2 * width]
    "add": "const:x const:y mut:out i64:rows i64:width i64:x_stride i64:y_stride i64:out_stride "
    "f32:scale i32:dtype",
    "add_gated": "const:x const:y const:gate mut:out i64:rows i64:width i64:x_stride i64:y_stride "
    "i64:gate_stride i64:out_stride i32:dtype i32:reserved",
    "scale": "const:x mut:out i64:rows i64:width i64:x_stride i64:out_stride f32:factor i32:dtype",
    "clamp": "const:x mut:out i64:rows i64:width i64:x_stride i64:out_stride f32:limit i32:dtype",
    "soft_cap": "const:x mut:out i64:rows i64:width i64:x_stride i64:out_stride f32:cap i32:dtype",
    "to_float32": "const:x mut:out i64:rows i64:width i64:x_stride i64:out_stride i32:dtype",
    "act": "const:x mut:out i64:rows i64:width i64:x_stride i64:out_stride i32:act i32:dtype",
    "act_mul": "const:x mut:out i64:rows i64:width i64:x_stride i64:out_stride i32:act i32:dtype",
    "swiglu_clamped": "const:x mut:out i64:rows i64:width i64:x_stride i64:out_stride f32:limit i32:dtype",
    # out[i] = x[chosen[i]] * scale for x [rows, width], and x[chosen[i]] = values[i]
    "take_rows": "const:x const:chosen mut:out i64:count i64:rows i64:width i64:x_stride "
    "i64:out_stride f32:scale i32:dtype",
    "put_rows": "mut:x const:chosen const:values i64:count i64:rows i64:width i64:x_stride "
    "i64:values_stride i32:dtype i32:values_dtype",
    # block sources[i] over block targets[i], in order; sizes in bytes
    "copy_blocks": "mut:buffer const:sources const:targets i64:count i64:block_bytes "
    "i64:blocks_per_slab i64:num_slabs i64:slab_bytes",
    # the best entry of rows of x [B, V]; rows null is the first `count`
    "argmax": "const:x const:rows mut:ids mut:values i64:count i64:stride i64:V",
    # params: for each row what it asks, packed by ops.cpu.sampling
    "sample_rows": "const:x const:params mut:ids mut:values i64:count i64:stride i64:V",
    "filter_rows": "mut:x const:params i64:count i64:stride i64:V",
    # divisors [count] float32
    "divide_rows": "mut:x const:rows const:divisors i64:count i64:stride i64:V",
    # words: for each row the address of its bits
    "mask_bits": "mut:x const:rows const:words i64:count i64:stride i64:V",
    # mode 0 keeps the listed ids, 1 adds values [ids] float32, 2 bans
    "edit_ids": "mut:x const:rows const:offsets const:ids const:values i64:count i64:stride i64:V "
    "i32:mode i32:reserved",
    "penalize": "mut:x const:rows const:seen_offsets const:seen const:output_offsets const:output "
    "const:repetition const:frequency const:presence i64:count i64:stride i64:V",
    # params: for each row what it wants, packed by ops.cpu.logprobs
    "top_logprobs": "const:x const:params const:asked mut:ids mut:values mut:ranks i64:count "
    "i64:stride i64:V i32:normalize i32:reserved",
    # x [rows, heads, C] normed by head, times weight [C] float32 and the sigmoid of gate, or gate * that
    "rms_norm_gated": "const:x const:gate const:weight mut:out i64:rows i64:heads i64:C i64:x_stride "
    "i64:x_head i64:gate_stride i64:gate_head i64:out_stride i64:out_head f32:eps i32:silu i32:dtype "
    "i32:reserved",
    # out = x * sigmoid(gate)
    "mul_sigmoid": "const:x const:gate mut:out i64:rows i64:width i64:x_stride i64:gate_stride "
    "i64:out_stride i32:dtype i32:reserved",
    # x [rows, heads, D] times softplus(gate [rows, heads])
    "mul_softplus": "const:x const:gate mut:out i64:rows i64:heads i64:D i64:x_stride i64:x_head "
    "i64:gate_stride i64:out_stride i64:out_head i32:dtype i32:reserved",
    # x [rows, queries + keys, D] and a number behind each head, [rows, queries + keys, D + R] out; steps [rows,
    # keys], rates [keys] float32
    "tell_keys": "const:x const:steps const:rates mut:out i64:rows i64:queries i64:keys i64:D i64:R "
    "i64:x_stride i64:x_head i64:steps_stride f32:of_queries i32:dtype",
    # x [rows, heads, E, D] times what weights [rows, top_k] has for e, 0 where ids lack it
    "weigh_sets": "const:x const:ids const:weights mut:out i64:rows i64:heads i64:E i64:D i64:top_k "
    "i32:dtype i32:reserved",
    # qkv [T, 2 Hk Dk + H Dv]; decay [T, H] (or [T, H Dk] with channels) and strength [T, H], null for none;
    # rate [H], bias [H] or [H, Dk] float32; matrices [H, Dk, Dv]
    "delta_rule": "const:qkv const:decay const:strength const:rate const:bias const:plan mut:states "
    "mut:out i64:slab_bytes i64:block_bytes i64:blocks_per_slab i64:qkv_stride i64:decay_stride "
    "i64:strength_stride i64:out_stride i64:Hk i64:H i64:Dk i64:Dv f32:scale f32:strength_scale "
    "i32:channels i32:unit i32:corrects i32:in_turns i32:dtype f32:bound",
    # x [T, 3C] to [T, C]; weight [W, C] and bias [C] float32, null for none; inputs [W - 1, C]
    "short_conv": "const:x const:weight const:bias const:plan mut:states mut:out i64:slab_bytes "
    "i64:block_bytes i64:blocks_per_slab i64:x_stride i64:out_stride i64:C i64:W i32:dtype i32:reserved",
    # x [T, C] with a window of W tokens; weight [W, C], bias [C] float32 or null; act 1 is silu; inputs
    # [W - 1, C]
    "causal_conv": "const:x const:weight const:bias const:plan mut:states mut:out i64:slab_bytes "
    "i64:block_bytes i64:blocks_per_slab i64:x_stride i64:out_stride i64:C i64:W i32:act i32:dtype",
    # x [T, H, P], b and c [T, G, N], steps [T, H]; step_bias, decay, skip [H] float32; states [H, N, P]
    "ssd_scan": "const:x const:b const:c const:steps const:step_bias const:decay const:skip "
    "const:plan mut:states mut:out i64:slab_bytes i64:block_bytes i64:blocks_per_slab i64:x_stride "
    "i64:b_stride i64:c_stride i64:steps_stride i64:out_stride i64:H i64:P i64:N i64:G f32:least "
    "f32:most i32:dtype i32:reserved",
    # x and steps [T, D], b and c [T, N]; step_bias, skip [D], decay [N, D] float32; states [N, D]
    "selective_scan": "const:x const:b const:c const:steps const:step_bias const:decay const:skip "
    "const:plan mut:states mut:out i64:slab_bytes i64:block_bytes i64:blocks_per_slab i64:x_stride "
    "i64:b_stride i64:c_stride i64:steps_stride i64:out_stride i64:D i64:N i32:dtype i32:reserved",
    # x [T, C] with the token before it [1, C]; shares [M, C] float32; [T, M, C] out
    "token_shift": "const:x const:shares const:plan mut:states mut:out i64:slab_bytes i64:block_bytes "
    "i64:blocks_per_slab i64:x_stride i64:out_stride i64:C i64:M i32:dtype i32:reserved",
    # key, value, gate [T, D]; decay, first [D] float32; states [3, D]
    "wkv": "const:key const:value const:gate const:decay const:first const:plan mut:states mut:out "
    "i64:slab_bytes i64:block_bytes i64:blocks_per_slab i64:key_stride i64:value_stride i64:gate_stride "
    "i64:out_stride i64:D i32:dtype i32:reserved",
    # x [T, H W], gates [T, H, 2 W]; bias [H, 2 W], rate [H W] float32; states [1, H W]
    "gated_lru": "const:x const:gates const:bias const:rate const:plan mut:states mut:out i64:slab_bytes "
    "i64:block_bytes i64:blocks_per_slab i64:x_stride i64:gates_stride i64:out_stride i64:H i64:W "
    "i32:dtype i32:reserved",
    # q, k [T, H, K], v [T, H, V], gates [T, 2 H]; states [H, K + 1, V + 1]
    "matrix_memory": "const:q const:k const:v const:gates const:plan mut:states mut:out i64:slab_bytes "
    "i64:block_bytes i64:blocks_per_slab i64:q_stride i64:k_stride i64:v_stride i64:gates_stride "
    "i64:out_stride i64:H i64:K i64:V f32:eps i32:dtype",
    # x, gate [rows, C], weight [C] float32; kind 0 norms what was gated, 1 gates what was normed, 2
    # only gates; each of `groups` equal parts has a norm of its own
    "group_norm_gated": "const:x const:gate const:weight mut:out i64:rows i64:C i64:x_stride "
    "i64:gate_stride i64:out_stride i64:groups f32:eps i32:kind i32:dtype i32:reserved",
    # q [T, H, D] over a paged cache, [T, H, Dv] out; cache is where a layer's part of block 0 lies;
    # sinks, slopes [H] float32 or null; window 0 for none; with farthest M above 0, slopes are biases
    # [H, 2 M + 1] of distances; picks [T, K, pick_count] int32 or null: blocks of pick_size tokens
    "attention": "const:q const:cache const:plan const:sinks const:slopes const:picks mut:out i64:q_stride "
    "i64:q_head_stride i64:out_stride i64:out_head_stride i64:slab_bytes i64:block_bytes "
    "i64:blocks_per_slab i64:block_size i64:H i64:K i64:D i64:Dv i64:window i64:pick_count i64:pick_size "
    "f32:scale f32:softcap "
    "f32:value_scale i32:farthest i32:bidirectional i32:chunked i32:dtype i32:format",
    # k [T, K, D] and v [T, K, Dv] into their slots; codes without scales are of numbers times these
    "attention_write": "const:k const:v mut:cache const:plan i64:k_stride i64:k_head_stride "
    "i64:v_stride i64:v_head_stride i64:slab_bytes i64:block_bytes i64:blocks_per_slab "
    "i64:block_size i64:K i64:D i64:Dv f32:key_inverse f32:value_inverse i32:dtype i32:format",
    # q [T, H, D] over keys of one head; picks [T, H, pick_count] int32 of blocks of `size` tokens
    "pick_blocks": "const:q const:cache const:plan mut:picks i64:q_stride i64:q_head_stride i64:slab_bytes "
    "i64:block_bytes i64:blocks_per_slab i64:block_size i64:H i64:K i64:D i64:Dv i64:size i64:local "
    "i64:pick_count i32:dtype i32:format",
}
"""By operation, `kind:name` of each field in order; sizes and strides are in elements."""

RECORDS: dict[str, str] = {
    # query_start [B + 1], seq_lens [B], block_table [B, table_stride] int32; slot_mapping [T] int64
    "attention_plan": "const:query_start const:seq_lens const:block_table const:slot_mapping "
    "i64:table_stride i64:num_sequences i64:num_tokens",
    # query_start [B + 1], seq_lens [B], block_table [B, table_stride] int32, as in ops.state
    "state_plan": "const:query_start const:seq_lens const:block_table i64:table_stride "
    "i64:num_sequences i64:interval",
}
"""The same for structs that arguments point to: what changes from step to step."""


VERSION = zlib.crc32(repr((_MEANING, DTYPES, OPERATIONS, RECORDS)).encode()) & 0x7FFFFFFF
"""What a library must have been built with to be called by these structs."""


def fields(name: str) -> list[tuple[str, str]]:
    """(kind, name) of each field of an operation's arguments or of a record."""
    text = OPERATIONS[name] if name in OPERATIONS else RECORDS[name]
    pairs = (field.split(":") for field in text.split())
    return [(kind, name) for kind, name in pairs]


def _make(name: str) -> type[ctypes.Structure]:
    members = [(field, TYPES[kind][1]) for kind, field in fields(name)]
    return type(f"{name}_args", (ctypes.Structure,), {"_fields_": members})


NUMBERS = {operation: number for number, operation in enumerate(OPERATIONS)}
"""Places in the library's table of functions."""

STRUCTS = {operation: _make(operation) for operation in OPERATIONS}
"""The ctypes class of each operation's arguments."""

RECORD_STRUCTS = {record: _make(record) for record in RECORDS}
"""The ctypes class of each record."""


class Call(ctypes.Structure):
    """One entry of a list that the library carries out."""

    _fields_ = [
        ("operation", ctypes.c_int32),
        ("reserved", ctypes.c_int32),
        ("args", ctypes.c_void_p),
    ]


def header() -> str:
    """The text of csrc/include/quire_ops.h."""
    lines = [
        "// Made by tools/native_header.py from quire/ops/cpu/structs.py; do not edit.",
        "#pragma once",
        "#include <stdint.h>",
        "",
        f"#define QUIRE_VERSION {VERSION}",
        "",
    ]
    lines += [
        f"#define QUIRE_{name.upper()} {number}"
        for name, number in {**DTYPES, **EXPERT_ACTS}.items()
    ]
    lines += [
        f"#define QUIRE_CACHE_{name.upper()} {number}" for name, number in CACHE_FORMATS.items()
    ]
    lines += ["", "#define QUIRE_OPERATIONS(X) \\"]
    lines += [f"  X({operation}) \\" for operation in OPERATIONS]
    lines[-1] = lines[-1].removesuffix(" \\")
    for struct, prefix in [
        *((o, "QuireArgs") for o in OPERATIONS),
        *((r, "Quire") for r in RECORDS),
    ]:
        lines += ["", "typedef struct {"]
        for kind, pairs in groupby(fields(struct), lambda pair: pair[0]):
            c_type, star, _ = TYPES[kind][0].partition("*")
            names = ", ".join(f"{star}{name}" for _, name in pairs)
            lines += wrap(
                f"{c_type.strip()} {names};", 100, initial_indent="  ", subsequent_indent=" " * 6
            )
        lines += [f"}} {prefix}_{struct};"]
    lines += [
        "",
        "typedef struct {",
        "  int32_t operation;",
        "  int32_t reserved;",
        "  const void* args;",
        "} QuireCall;",
    ]
    return "\n".join(lines) + "\n"
