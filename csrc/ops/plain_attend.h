// Register kernels of attention over bfloat16 by float32 arithmetic alone.
#pragma once
#include "attend_lanes.h"

namespace quire {

template <> struct Kind<bf16> {
  typedef PackedBf16 Query;
  typedef float Weight;  // rounded to bfloat16
  typedef uint32_t Unit;
  static const int per = 2;
  static const int row = 32;
};

QUIRE_INLINE float highest(vf a) { return largest(a); }

// out[i] is the highest number of rows[i], or `other` where there is no such row, for i < 16.
template <int R> QUIRE_INLINE void highest_each(const vf* rows, float other, float* out) {
  for (int i = 0; i < 16; i++) out[i] = i < R ? largest(rows[i < R ? i : 0]) : other;
}

QUIRE_INLINE void pack_query(const bf16* x, int64_t size, int64_t steps, int rows, PackedBf16* out) {
  pack_row(x, size, steps, rows, out);
}

QUIRE_INLINE vf low_of(vi pairs) { return as_float(shift_left<16>(pairs)); }
QUIRE_INLINE vf high_of(vi pairs) { return as_float(pairs & vi_set((int32_t)0xffff0000)); }

template <int R>
QUIRE_INLINE void score(const PackedBf16* q, const uint32_t* const k[2], int64_t steps, float* out,
                        const Ahead& ahead) {
  vf c[R][2];
  for (int i = 0; i < R; i++) c[i][0] = c[i][1] = vf_zero();
  for (int64_t s = 0; s < steps; s++)
    for (int j = 0; j < 2; j++) {
      vi pairs = load((const int32_t*)k[j] + 16 * s);
      vf low = low_of(pairs), high = high_of(pairs);
      for (int i = 0; i < R; i++) {
        c[i][j] = fma(vf_set(q[s * R + i].k[0]), low, c[i][j]);
        c[i][j] = fma(vf_set(q[s * R + i].k[1]), high, c[i][j]);
      }
      fetch(ahead.keys[j] + 64 * s);
    }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) store(out + 32 * i + 16 * j, c[i][j]);
}

template <int R, int C>
QUIRE_INLINE void mix(const float* weights, const uint32_t* const v[2], int64_t steps, int64_t stride, int64_t at,
                      float* sums, const float* keep, bool fresh, const Ahead& ahead) {
  vf c[R][C];
  for (int i = 0; i < R; i++)
    for (int j = 0; j < C; j++)
      c[i][j] = begin_sum(sums + i * stride + 16 * j + at, keep ? keep + i : nullptr, fresh);
  for (int64_t s = 0; s < steps; s++) {
    const int64_t row = s % 8 * stride + at;
    for (int j = 0; j < C; j++) {
      vi pairs = load((const int32_t*)v[s / 8] + row + 16 * j);
      vf low = low_of(pairs), high = high_of(pairs);
      for (int i = 0; i < R; i++) {
        c[i][j] = fma(vf_set(weights[32 * i + 2 * s]), low, c[i][j]);
        c[i][j] = fma(vf_set(weights[32 * i + 2 * s + 1]), high, c[i][j]);
      }
      fetch(ahead.values[s / 8] + 4 * row + 64 * j);
    }
  }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < C; j++) store(sums + i * stride + 16 * j + at, c[i][j]);
}

QUIRE_INLINE vf put_weights(bf16, vf low, vf high, vf sum, float* out) {
  low = from_bf16(to_bf16(low));
  high = from_bf16(to_bf16(high));
  store(out, low);
  store(out + 16, high);
  return sum + (low + high);
}

}  // namespace quire
