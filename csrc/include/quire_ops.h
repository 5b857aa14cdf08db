// Made by tools/native_header.py from quire/ops/cpu/structs.py; do not edit.
#pragma once
#include <stdint.h>

#define QUIRE_VERSION 228571042

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

#define QUIRE_OPERATIONS(X) \
  X(linear) \
  X(pack_linear) \
  X(take_packed) \
  X(linear_quantized) \
  X(pack_quantized) \
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
  X(delta_rule) \
  X(short_conv) \
  X(attention) \
  X(attention_write)

typedef struct {
  const void* x;
  const void* weight;
  const void* scales;
  const void* bias;
  const void* delta;
  void* out;
  int64_t rows;
  int64_t x_stride;
  int64_t out_stride;
  int64_t delta_stride;
  int64_t N;
  int64_t K;
  int32_t dtype;
  int32_t format;
  int32_t group;
  int32_t reserved;
} QuireArgs_linear;

typedef struct {
  const void* weight;
  void* out;
  int64_t N;
  int64_t K;
  int64_t stride;
  int32_t dtype;
  int32_t format;
} QuireArgs_pack_linear;

typedef struct {
  const void* table;
  const void* chosen;
  void* out;
  int64_t count;
  int64_t rows;
  int64_t width;
  int64_t out_stride;
  float scale;
  int32_t dtype;
} QuireArgs_take_packed;

typedef struct {
  const void* x;
  const void* weight;
  const void* bias;
  const void* delta;
  void* out;
  int64_t rows;
  int64_t x_stride;
  int64_t out_stride;
  int64_t delta_stride;
  int64_t N;
  int64_t K;
  int32_t dtype;
  int32_t format;
  int32_t group;
  int32_t reserved;
} QuireArgs_linear_quantized;

typedef struct {
  const void* codes;
  const void* scales;
  const void* zeros;
  void* out;
  int64_t N;
  int64_t K;
  int64_t stride;
  int32_t format;
  int32_t group;
  float step;
  int32_t shift;
} QuireArgs_pack_quantized;

typedef struct {
  const void* logits;
  const void* bias;
  void* ids;
  void* weights;
  int64_t rows;
  int64_t E;
  int64_t stride;
  int64_t top_k;
  int64_t groups;
  int64_t top_groups;
  int64_t group_best;
  float scale;
  float jitter;
  int32_t scoring;
  int32_t normalize;
  int32_t dtype;
  int32_t reserved;
} QuireArgs_route;

typedef struct {
  const void* x;
  const void* ids;
  const void* weights;
  const void* gate_up;
  const void* down;
  const void* gate_up_bias;
  const void* down_bias;
  void* out;
  int64_t rows;
  int64_t x_stride;
  int64_t out_stride;
  int64_t top_k;
  int64_t E;
  int64_t C;
  int64_t F;
  int64_t gate_up_bytes;
  int64_t down_bytes;
  float limit;
  int32_t act;
  int32_t dtype;
  int32_t format;
  int32_t group;
  int32_t reserved;
} QuireArgs_experts;

typedef struct {
  const void* weight;
  const void* limits;
  void* codes;
  void* scales;
  void* zeros;
  int64_t N;
  int64_t K;
  int64_t stride;
  int32_t dtype;
  int32_t format;
  int32_t group;
  int32_t reserved;
} QuireArgs_round_weight;

typedef struct {
  void* failed;
  int64_t common_bytes;
  int64_t own_bytes;
} QuireArgs_reserve;

typedef struct {
  const void* data;
  void* out;
  int64_t bytes;
} QuireArgs_probe_read;

typedef struct {
  void* out;
  int64_t steps;
  int32_t dtype;
  int32_t reserved;
} QuireArgs_probe_dot;

typedef struct {
  const void* x;
  const void* weight;
  void* out;
  int64_t rows;
  int64_t heads;
  int64_t C;
  int64_t x_stride;
  int64_t x_head;
  int64_t out_stride;
  int64_t out_head;
  float eps;
  int32_t dtype;
} QuireArgs_rms_norm;

typedef struct {
  const void* x;
  void* residual;
  const void* weight;
  void* out;
  int64_t rows;
  int64_t C;
  int64_t x_stride;
  int64_t residual_stride;
  int64_t out_stride;
  float eps;
  int32_t dtype;
} QuireArgs_add_rms_norm;

typedef struct {
  const void* x;
  const void* weight;
  const void* bias;
  void* out;
  int64_t rows;
  int64_t heads;
  int64_t C;
  int64_t x_stride;
  int64_t x_head;
  int64_t out_stride;
  int64_t out_head;
  int64_t weight_head;
  float eps;
  int32_t dtype;
} QuireArgs_layer_norm;

typedef struct {
  void* x;
  const void* positions;
  const void* table;
  int64_t rows;
  int64_t heads;
  int64_t stride;
  int64_t head;
  int64_t rot;
  int64_t max_len;
  int32_t interleaved;
  int32_t dtype;
} QuireArgs_rope;

typedef struct {
  void* x;
  const void* q_weight;
  const void* k_weight;
  const void* positions;
  const void* table;
  int64_t rows;
  int64_t heads;
  int64_t q_heads;
  int64_t D;
  int64_t stride;
  int64_t head;
  int64_t rot;
  int64_t max_len;
  float eps;
  int32_t interleaved;
  int32_t dtype;
  int32_t reserved;
} QuireArgs_qk_rope;

typedef struct {
  const void* x;
  const void* y;
  void* out;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t y_stride;
  int64_t out_stride;
  float scale;
  int32_t dtype;
} QuireArgs_add;

typedef struct {
  const void* x;
  const void* y;
  const void* gate;
  void* out;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t y_stride;
  int64_t gate_stride;
  int64_t out_stride;
  int32_t dtype;
  int32_t reserved;
} QuireArgs_add_gated;

typedef struct {
  const void* x;
  void* out;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t out_stride;
  float factor;
  int32_t dtype;
} QuireArgs_scale;

typedef struct {
  const void* x;
  void* out;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t out_stride;
  float limit;
  int32_t dtype;
} QuireArgs_clamp;

typedef struct {
  const void* x;
  void* out;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t out_stride;
  float cap;
  int32_t dtype;
} QuireArgs_soft_cap;

typedef struct {
  const void* x;
  void* out;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t out_stride;
  int32_t dtype;
} QuireArgs_to_float32;

typedef struct {
  const void* x;
  void* out;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t out_stride;
  int32_t act;
  int32_t dtype;
} QuireArgs_act;

typedef struct {
  const void* x;
  void* out;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t out_stride;
  int32_t act;
  int32_t dtype;
} QuireArgs_act_mul;

typedef struct {
  const void* x;
  const void* chosen;
  void* out;
  int64_t count;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t out_stride;
  float scale;
  int32_t dtype;
} QuireArgs_take_rows;

typedef struct {
  void* x;
  const void* chosen;
  const void* values;
  int64_t count;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t values_stride;
  int32_t dtype;
  int32_t values_dtype;
} QuireArgs_put_rows;

typedef struct {
  void* buffer;
  const void* sources;
  const void* targets;
  int64_t count;
  int64_t block_bytes;
  int64_t blocks_per_slab;
  int64_t num_slabs;
  int64_t slab_bytes;
} QuireArgs_copy_blocks;

typedef struct {
  const void* x;
  const void* rows;
  void* ids;
  void* values;
  int64_t count;
  int64_t stride;
  int64_t V;
} QuireArgs_argmax;

typedef struct {
  const void* x;
  const void* params;
  void* ids;
  void* values;
  int64_t count;
  int64_t stride;
  int64_t V;
} QuireArgs_sample_rows;

typedef struct {
  void* x;
  const void* params;
  int64_t count;
  int64_t stride;
  int64_t V;
} QuireArgs_filter_rows;

typedef struct {
  void* x;
  const void* rows;
  const void* divisors;
  int64_t count;
  int64_t stride;
  int64_t V;
} QuireArgs_divide_rows;

typedef struct {
  void* x;
  const void* rows;
  const void* words;
  int64_t count;
  int64_t stride;
  int64_t V;
} QuireArgs_mask_bits;

typedef struct {
  void* x;
  const void* rows;
  const void* offsets;
  const void* ids;
  const void* values;
  int64_t count;
  int64_t stride;
  int64_t V;
  int32_t mode;
  int32_t reserved;
} QuireArgs_edit_ids;

typedef struct {
  void* x;
  const void* rows;
  const void* seen_offsets;
  const void* seen;
  const void* output_offsets;
  const void* output;
  const void* repetition;
  const void* frequency;
  const void* presence;
  int64_t count;
  int64_t stride;
  int64_t V;
} QuireArgs_penalize;

typedef struct {
  const void* x;
  const void* params;
  const void* asked;
  void* ids;
  void* values;
  void* ranks;
  int64_t count;
  int64_t stride;
  int64_t V;
  int32_t normalize;
  int32_t reserved;
} QuireArgs_top_logprobs;

typedef struct {
  const void* x;
  const void* gate;
  const void* weight;
  void* out;
  int64_t rows;
  int64_t heads;
  int64_t C;
  int64_t x_stride;
  int64_t x_head;
  int64_t gate_stride;
  int64_t gate_head;
  int64_t out_stride;
  int64_t out_head;
  float eps;
  int32_t silu;
  int32_t dtype;
  int32_t reserved;
} QuireArgs_rms_norm_gated;

typedef struct {
  const void* x;
  const void* gate;
  void* out;
  int64_t rows;
  int64_t width;
  int64_t x_stride;
  int64_t gate_stride;
  int64_t out_stride;
  int32_t dtype;
  int32_t reserved;
} QuireArgs_mul_sigmoid;

typedef struct {
  const void* qkv;
  const void* decay;
  const void* strength;
  const void* rate;
  const void* bias;
  const void* plan;
  void* states;
  void* out;
  int64_t slab_bytes;
  int64_t block_bytes;
  int64_t blocks_per_slab;
  int64_t qkv_stride;
  int64_t decay_stride;
  int64_t strength_stride;
  int64_t out_stride;
  int64_t Hk;
  int64_t H;
  int64_t Dk;
  int64_t Dv;
  float scale;
  float strength_scale;
  int32_t channels;
  int32_t unit;
  int32_t corrects;
  int32_t dtype;
} QuireArgs_delta_rule;

typedef struct {
  const void* x;
  const void* weight;
  const void* bias;
  const void* plan;
  void* states;
  void* out;
  int64_t slab_bytes;
  int64_t block_bytes;
  int64_t blocks_per_slab;
  int64_t x_stride;
  int64_t out_stride;
  int64_t C;
  int64_t W;
  int32_t dtype;
  int32_t reserved;
} QuireArgs_short_conv;

typedef struct {
  const void* q;
  const void* cache;
  const void* plan;
  const void* sinks;
  const void* slopes;
  void* out;
  int64_t q_stride;
  int64_t q_head_stride;
  int64_t out_stride;
  int64_t out_head_stride;
  int64_t slab_bytes;
  int64_t block_bytes;
  int64_t blocks_per_slab;
  int64_t block_size;
  int64_t H;
  int64_t K;
  int64_t D;
  int64_t Dv;
  int64_t window;
  float scale;
  float softcap;
  int32_t bidirectional;
  int32_t dtype;
  int32_t format;
  int32_t reserved;
} QuireArgs_attention;

typedef struct {
  const void* k;
  const void* v;
  void* cache;
  const void* plan;
  int64_t k_stride;
  int64_t k_head_stride;
  int64_t v_stride;
  int64_t v_head_stride;
  int64_t slab_bytes;
  int64_t block_bytes;
  int64_t blocks_per_slab;
  int64_t block_size;
  int64_t K;
  int64_t D;
  int64_t Dv;
  int32_t dtype;
  int32_t format;
} QuireArgs_attention_write;

typedef struct {
  const void* query_start;
  const void* seq_lens;
  const void* block_table;
  const void* slot_mapping;
  int64_t table_stride;
  int64_t num_sequences;
  int64_t num_tokens;
} Quire_attention_plan;

typedef struct {
  const void* query_start;
  const void* seq_lens;
  const void* block_table;
  int64_t table_stride;
  int64_t num_sequences;
  int64_t interval;
} Quire_state_plan;

typedef struct {
  int32_t operation;
  int32_t reserved;
  const void* args;
} QuireCall;
