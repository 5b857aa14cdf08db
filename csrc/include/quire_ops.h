// Made by tools/native_header.py from quire/ops/cpu/structs.py; do not edit.
#pragma once
#include <stdint.h>

#define QUIRE_VERSION 1120383931

#define QUIRE_FLOAT32 0
#define QUIRE_BFLOAT16 1
#define QUIRE_FLOAT16 2
#define QUIRE_SILU 0
#define QUIRE_GELU 1
#define QUIRE_GELU_TANH 2
#define QUIRE_RELU 3
#define QUIRE_RELU2 4
#define QUIRE_SWIGLU_CLAMPED 5
#define QUIRE_CACHE_PLAIN 0
#define QUIRE_CACHE_FP8 1
#define QUIRE_CACHE_FP8_PER_TOKEN_HEAD 2
#define QUIRE_CACHE_INT8_PER_TOKEN_HEAD 3
#define QUIRE_CACHE_FP8_E5M2 4

#define QUIRE_OPERATIONS(X) \
  X(linear) \
  X(pack_linear) \
  X(take_packed) \
  X(linear_quantized) \
  X(pack_quantized) \
  X(pack_super) \
  X(route) \
  X(experts) \
  X(round_weight) \
  X(reserve) \
  X(probe_read) \
  X(probe_dot) \
  X(rms_norm) \
  X(add_rms_norm) \
  X(layer_norm) \
  X(rope) \
  X(qk_rope) \
  X(add) \
  X(add_gated) \
  X(scale) \
  X(clamp) \
  X(soft_cap) \
  X(to_float32) \
  X(act) \
  X(act_mul) \
  X(swiglu_clamped) \
  X(take_rows) \
  X(put_rows) \
  X(copy_blocks) \
  X(argmax) \
  X(sample_rows) \
  X(filter_rows) \
  X(divide_rows) \
  X(mask_bits) \
  X(edit_ids) \
  X(penalize) \
  X(top_logprobs) \
  X(rms_norm_gated) \
  X(mul_sigmoid) \
  X(mul_softplus) \
  X(tell_keys) \
  X(weigh_sets) \
  X(delta_rule) \
  X(short_conv) \
  X(causal_conv) \
  X(ssd_scan) \
  X(selective_scan) \
  X(token_shift) \
  X(wkv) \
  X(gated_lru) \
  X(matrix_memory) \
  X(group_norm_gated) \
  X(attention) \
  X(attention_write) \
  X(pick_blocks)

typedef struct {
  const void *x, *weight, *scales, *bias, *delta;
  void *out;
  int64_t rows, x_stride, out_stride, delta_stride, N, K;
  int32_t dtype, format, group, is_wide;
} QuireArgs_linear;

typedef struct {
  const void *weight;
  void *out;
  int64_t N, K, stride;
  int32_t dtype, format;
} QuireArgs_pack_linear;

typedef struct {
  const void *table, *chosen;
  void *out;
  int64_t count, rows, width, out_stride;
  float scale;
  int32_t dtype;
} QuireArgs_take_packed;

typedef struct {
  const void *x, *weight, *order, *bias, *delta;
  void *out;
  int64_t rows, x_stride, out_stride, delta_stride, N, K;
  int32_t dtype, format, group, is_wide;
} QuireArgs_linear_quantized;

typedef struct {
  const void *codes, *scales, *zeros;
  void *out;
  int64_t N, K, stride;
  int32_t format, group;
  float step;
  int32_t shift;
} QuireArgs_pack_quantized;

typedef struct {
  const void *codes, *factors, *floors, *steps, *minima;
  void *out;
  int64_t N, K, stride, first, place;
  int32_t kind, format;
} QuireArgs_pack_super;

typedef struct {
  const void *logits, *bias;
  void *ids, *weights;
  int64_t rows, E, stride, top_k, groups, top_groups, group_best;
  float scale, jitter;
  int32_t scoring, normalize, dtype, reserved;
} QuireArgs_route;

typedef struct {
  const void *x, *ids, *weights, *gate_up, *down, *gate_up_bias, *down_bias;
  void *out;
  int64_t rows, x_stride, out_stride, top_k, E, C, F, gate_up_bytes, down_bytes;
  float limit;
  int32_t act, dtype, format, group, weigh_inputs, halves;
  float gate_limit;
} QuireArgs_experts;

typedef struct {
  const void *weight, *limits;
  void *codes, *scales, *zeros;
  int64_t N, K, stride;
  int32_t dtype, format, group, reserved;
} QuireArgs_round_weight;

typedef struct {
  void *failed;
  int64_t common_bytes, own_bytes;
} QuireArgs_reserve;

typedef struct {
  const void *data;
  void *out;
  int64_t bytes;
} QuireArgs_probe_read;

typedef struct {
  void *out;
  int64_t steps;
  int32_t dtype, reserved;
} QuireArgs_probe_dot;

typedef struct {
  const void *x, *weight;
  void *out;
  int64_t rows, heads, C, x_stride, x_head, out_stride, out_head;
  float eps;
  int32_t dtype;
} QuireArgs_rms_norm;

typedef struct {
  const void *x;
  void *residual;
  const void *weight;
  void *out;
  int64_t rows, C, x_stride, residual_stride, out_stride;
  float eps;
  int32_t dtype;
} QuireArgs_add_rms_norm;

typedef struct {
  const void *x, *weight, *bias;
  void *out;
  int64_t rows, heads, C, x_stride, x_head, out_stride, out_head, weight_head;
  float eps;
  int32_t dtype;
} QuireArgs_layer_norm;

typedef struct {
  void *x;
  const void *positions, *table;
  int64_t rows, heads, stride, head, rot, max_len;
  int32_t interleaved, dtype;
} QuireArgs_rope;

typedef struct {
  void *x;
  const void *q_weight, *k_weight, *positions, *table;
  int64_t rows, heads, q_heads, D, stride, head, rot, max_len;
  float eps;
  int32_t interleaved, dtype, reserved;
} QuireArgs_qk_rope;

typedef struct {
  const void *x, *y;
  void *out;
  int64_t rows, width, x_stride, y_stride, out_stride;
  float scale;
  int32_t dtype;
} QuireArgs_add;

typedef struct {
  const void *x, *y, *gate;
  void *out;
  int64_t rows, width, x_stride, y_stride, gate_stride, out_stride;
  int32_t dtype, reserved;
} QuireArgs_add_gated;

typedef struct {
  const void *x;
  void *out;
  int64_t rows, width, x_stride, out_stride;
  float factor;
  int32_t dtype;
} QuireArgs_scale;

typedef struct {
  const void *x;
  void *out;
  int64_t rows, width, x_stride, out_stride;
  float limit;
  int32_t dtype;
} QuireArgs_clamp;

typedef struct {
  const void *x;
  void *out;
  int64_t rows, width, x_stride, out_stride;
  float cap;
  int32_t dtype;
} QuireArgs_soft_cap;

typedef struct {
  const void *x;
  void *out;
  int64_t rows, width, x_stride, out_stride;
  int32_t dtype;
} QuireArgs_to_float32;

typedef struct {
  const void *x;
  void *out;
  int64_t rows, width, x_stride, out_stride;
  int32_t act, dtype;
} QuireArgs_act;

typedef struct {
  const void *x;
  void *out;
  int64_t rows, width, x_stride, out_stride;
  int32_t act, dtype;
} QuireArgs_act_mul;

typedef struct {
  const void *x;
  void *out;
  int64_t rows, width, x_stride, out_stride;
  float limit;
  int32_t dtype;
} QuireArgs_swiglu_clamped;

typedef struct {
  const void *x, *chosen;
  void *out;
  int64_t count, rows, width, x_stride, out_stride;
  float scale;
  int32_t dtype;
} QuireArgs_take_rows;

typedef struct {
  void *x;
  const void *chosen, *values;
  int64_t count, rows, width, x_stride, values_stride;
  int32_t dtype, values_dtype;
} QuireArgs_put_rows;

typedef struct {
  void *buffer;
  const void *sources, *targets;
  int64_t count, block_bytes, blocks_per_slab, num_slabs, slab_bytes;
} QuireArgs_copy_blocks;

typedef struct {
  const void *x, *rows;
  void *ids, *values;
  int64_t count, stride, V;
} QuireArgs_argmax;

typedef struct {
  const void *x, *params;
  void *ids, *values;
  int64_t count, stride, V;
} QuireArgs_sample_rows;

typedef struct {
  void *x;
  const void *params;
  int64_t count, stride, V;
} QuireArgs_filter_rows;

typedef struct {
  void *x;
  const void *rows, *divisors;
  int64_t count, stride, V;
} QuireArgs_divide_rows;

typedef struct {
  void *x;
  const void *rows, *words;
  int64_t count, stride, V;
} QuireArgs_mask_bits;

typedef struct {
  void *x;
  const void *rows, *offsets, *ids, *values;
  int64_t count, stride, V;
  int32_t mode, reserved;
} QuireArgs_edit_ids;

typedef struct {
  void *x;
  const void *rows, *seen_offsets, *seen, *output_offsets, *output, *repetition, *frequency,
      *presence;
  int64_t count, stride, V;
} QuireArgs_penalize;

typedef struct {
  const void *x, *params, *asked;
  void *ids, *values, *ranks;
  int64_t count, stride, V;
  int32_t normalize, reserved;
} QuireArgs_top_logprobs;

typedef struct {
  const void *x, *gate, *weight;
  void *out;
  int64_t rows, heads, C, x_stride, x_head, gate_stride, gate_head, out_stride, out_head;
  float eps;
  int32_t silu, dtype, reserved;
} QuireArgs_rms_norm_gated;

typedef struct {
  const void *x, *gate;
  void *out;
  int64_t rows, width, x_stride, gate_stride, out_stride;
  int32_t dtype, reserved;
} QuireArgs_mul_sigmoid;

typedef struct {
  const void *x, *gate;
  void *out;
  int64_t rows, heads, D, x_stride, x_head, gate_stride, out_stride, out_head;
  int32_t dtype, reserved;
} QuireArgs_mul_softplus;

typedef struct {
  const void *x, *steps, *rates;
  void *out;
  int64_t rows, queries, keys, D, R, x_stride, x_head, steps_stride;
  float of_queries;
  int32_t dtype;
} QuireArgs_tell_keys;

typedef struct {
  const void *x, *ids, *weights;
  void *out;
  int64_t rows, heads, E, D, top_k;
  int32_t dtype, reserved;
} QuireArgs_weigh_sets;

typedef struct {
  const void *qkv, *decay, *strength, *rate, *bias, *plan;
  void *states, *out;
  int64_t slab_bytes, block_bytes, blocks_per_slab, qkv_stride, decay_stride, strength_stride,
      out_stride, Hk, H, Dk, Dv;
  float scale, strength_scale;
  int32_t channels, unit, corrects, in_turns, dtype;
  float bound;
} QuireArgs_delta_rule;

typedef struct {
  const void *x, *weight, *bias, *plan;
  void *states, *out;
  int64_t slab_bytes, block_bytes, blocks_per_slab, x_stride, out_stride, C, W;
  int32_t dtype, reserved;
} QuireArgs_short_conv;

typedef struct {
  const void *x, *weight, *bias, *plan;
  void *states, *out;
  int64_t slab_bytes, block_bytes, blocks_per_slab, x_stride, out_stride, C, W;
  int32_t act, dtype;
} QuireArgs_causal_conv;

typedef struct {
  const void *x, *b, *c, *steps, *step_bias, *decay, *skip, *plan;
  void *states, *out;
  int64_t slab_bytes, block_bytes, blocks_per_slab, x_stride, b_stride, c_stride, steps_stride,
      out_stride, H, P, N, G;
  float least, most;
  int32_t dtype, reserved;
} QuireArgs_ssd_scan;

typedef struct {
  const void *x, *b, *c, *steps, *step_bias, *decay, *skip, *plan;
  void *states, *out;
  int64_t slab_bytes, block_bytes, blocks_per_slab, x_stride, b_stride, c_stride, steps_stride,
      out_stride, D, N;
  int32_t dtype, reserved;
} QuireArgs_selective_scan;

typedef struct {
  const void *x, *shares, *plan;
  void *states, *out;
  int64_t slab_bytes, block_bytes, blocks_per_slab, x_stride, out_stride, C, M;
  int32_t dtype, reserved;
} QuireArgs_token_shift;

typedef struct {
  const void *key, *value, *gate, *decay, *first, *plan;
  void *states, *out;
  int64_t slab_bytes, block_bytes, blocks_per_slab, key_stride, value_stride, gate_stride,
      out_stride, D;
  int32_t dtype, reserved;
} QuireArgs_wkv;

typedef struct {
  const void *x, *gates, *bias, *rate, *plan;
  void *states, *out;
  int64_t slab_bytes, block_bytes, blocks_per_slab, x_stride, gates_stride, out_stride, H, W;
  int32_t dtype, reserved;
} QuireArgs_gated_lru;

typedef struct {
  const void *q, *k, *v, *gates, *plan;
  void *states, *out;
  int64_t slab_bytes, block_bytes, blocks_per_slab, q_stride, k_stride, v_stride, gates_stride,
      out_stride, H, K, V;
  float eps;
  int32_t dtype;
} QuireArgs_matrix_memory;

typedef struct {
  const void *x, *gate, *weight;
  void *out;
  int64_t rows, C, x_stride, gate_stride, out_stride, groups;
  float eps;
  int32_t kind, dtype, reserved;
} QuireArgs_group_norm_gated;

typedef struct {
  const void *q, *cache, *plan, *sinks, *slopes, *picks;
  void *out;
  int64_t q_stride, q_head_stride, out_stride, out_head_stride, slab_bytes, block_bytes,
      blocks_per_slab, block_size, H, K, D, Dv, window, pick_count, pick_size;
  float scale, softcap, value_scale;
  int32_t farthest, bidirectional, chunked, dtype, format;
} QuireArgs_attention;

typedef struct {
  const void *k, *v;
  void *cache;
  const void *plan;
  int64_t k_stride, k_head_stride, v_stride, v_head_stride, slab_bytes, block_bytes,
      blocks_per_slab, block_size, K, D, Dv;
  float key_inverse, value_inverse;
  int32_t dtype, format;
} QuireArgs_attention_write;

typedef struct {
  const void *q, *cache, *plan;
  void *picks;
  int64_t q_stride, q_head_stride, slab_bytes, block_bytes, blocks_per_slab, block_size, H, K, D,
      Dv, size, local, pick_count;
  int32_t dtype, format;
} QuireArgs_pick_blocks;

typedef struct {
  const void *query_start, *seq_lens, *block_table, *slot_mapping;
  int64_t table_stride, num_sequences, num_tokens;
} Quire_attention_plan;

typedef struct {
  const void *query_start, *seq_lens, *block_table;
  int64_t table_stride, num_sequences, interval;
} Quire_state_plan;

typedef struct {
  int32_t operation;
  int32_t reserved;
  const void* args;
} QuireCall;
