// Register kernels of attention; bfloat16 goes through the dot products of AVX-512 BF16.
#pragma once
#include "vec.h"

namespace quire {
#define QUIRE_HAS_SCALED
QUIRE_INLINE vf scaled(vf x, vf n) { return {_mm512_scalef_ps(x.v, n.v)}; }
}  // namespace quire

#include "attend_lanes.h"
#include "codes.h"
#include "dot_int.h"

namespace quire {

const int kSumVectors = 24;  // sums of sixteen lanes that registers hold in `mix`

// Pairs of numbers, as the processor multiplies them.
template <> struct Kind<bf16> {
  typedef PackedBf16 Query;
  typedef uint32_t Weight;
  typedef uint32_t Unit;
  static const int per = 2;
  static const int row = 16;
};

QUIRE_INLINE float highest(vf a) { return _mm512_reduce_max_ps(a.v); }

// Quarters of a and b in pairs: max(a0, a2), max(a1, a3), max(b0, b2), max(b1, b3).
QUIRE_INLINE __m512 halves(__m512 a, __m512 b) {
  return _mm512_max_ps(_mm512_shuffle_f32x4(a, b, 0x44), _mm512_shuffle_f32x4(a, b, 0xee));
}

// Four rows, one in each quarter: the highest of its quarters, number by number.
QUIRE_INLINE __m512 quarters(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512 ab = halves(a, b), cd = halves(c, d);
  return _mm512_max_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
}

// out[i] is the highest number of rows[i], or `other` where there is no such row, for i < 16.
template <int R> QUIRE_INLINE void highest_each(const vf* rows, float other, float* out) {
  __m512 all[16], four[4];
  for (int i = 0; i < 16; i++) all[i] = i < R ? rows[i < R ? i : 0].v : _mm512_set1_ps(other);
  for (int i = 0; i < 4; i++) four[i] = quarters(all[i], all[i + 4], all[i + 8], all[i + 12]);
  // rows i, i + 4, i + 8, i + 12 have a quarter of four[i] each
  const __m512 even = _mm512_max_ps(_mm512_unpacklo_ps(four[0], four[1]), _mm512_unpackhi_ps(four[0], four[1]));
  const __m512 odd = _mm512_max_ps(_mm512_unpacklo_ps(four[2], four[3]), _mm512_unpackhi_ps(four[2], four[3]));
  const __m512d low = _mm512_unpacklo_pd((__m512d)even, (__m512d)odd);
  const __m512d high = _mm512_unpackhi_pd((__m512d)even, (__m512d)odd);
  _mm512_storeu_ps(out, _mm512_max_ps((__m512)low, (__m512)high));
}

QUIRE_INLINE void pack_query(const bf16* x, int64_t size, int64_t steps, int rows, PackedBf16* out) {
  pack_row(x, size, steps, rows, out);
}

QUIRE_INLINE __m512bh pairs_of(const uint32_t* p) { return (__m512bh)_mm512_loadu_si512(p); }
QUIRE_INLINE __m512bh pair_of(uint32_t x) { return (__m512bh)_mm512_set1_epi32((int)x); }

template <int R>
QUIRE_INLINE void score(const PackedBf16* q, const uint32_t* const k[2], int64_t steps, float* out,
                        const Ahead& ahead) {
  __m512 c[R][2];
  for (int i = 0; i < R; i++) c[i][0] = c[i][1] = _mm512_setzero_ps();
  for (int64_t s = 0; s < steps; s++) {
    __m512bh b0 = pairs_of(k[0] + 16 * s), b1 = pairs_of(k[1] + 16 * s);
    for (int i = 0; i < R; i++) {
      __m512bh a = pair_of(q[s * R + i]);
      c[i][0] = _mm512_dpbf16_ps(c[i][0], a, b0);
      c[i][1] = _mm512_dpbf16_ps(c[i][1], a, b1);
    }
    fetch(ahead.keys[0] + 64 * s);
    fetch(ahead.keys[1] + 64 * s);
  }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) _mm512_storeu_ps(out + 32 * i + 16 * j, c[i][j]);
}

template <int R, int C>
QUIRE_INLINE void mix(const uint32_t* weights, const uint32_t* const v[2], int64_t steps, int64_t stride, int64_t at,
                      float* sums, const float* keep, bool fresh, const Ahead& ahead) {
  __m512 c[R][C];
  for (int i = 0; i < R; i++)
    for (int j = 0; j < C; j++)
      c[i][j] = begin_sum(sums + i * stride + 16 * j + at, keep ? keep + i : nullptr, fresh).v;
  for (int64_t s = 0; s < steps; s++) {
    const int64_t row = s % 8 * stride + at;
    const uint32_t* p = v[s / 8] + row;
    if (R < C) {
      __m512bh a[R];
      for (int i = 0; i < R; i++) a[i] = pair_of(weights[16 * i + s]);
      for (int j = 0; j < C; j++) {
        __m512bh b = pairs_of(p + 16 * j);
        for (int i = 0; i < R; i++) c[i][j] = _mm512_dpbf16_ps(c[i][j], a[i], b);
      }
    } else {
      __m512bh b[C];
      for (int j = 0; j < C; j++) b[j] = pairs_of(p + 16 * j);
      for (int i = 0; i < R; i++) {
        __m512bh a = pair_of(weights[16 * i + s]);
        for (int j = 0; j < C; j++) c[i][j] = _mm512_dpbf16_ps(c[i][j], a, b[j]);
      }
    }
    for (int j = 0; j < C; j++) fetch(ahead.values[s / 8] + 4 * row + 64 * j);
  }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < C; j++) _mm512_storeu_ps(sums + i * stride + 16 * j + at, c[i][j]);
}

// 64 codes of a cache as numbers, exactly.
#define QUIRE_HAS_WIDEN
template <CodeKind kind> QUIRE_INLINE void widen64(const uint8_t* from, bf16* to) {
  for (int i = 0; i < 64; i += 32) {
    __m512i numbers;
    if (kind == kE4m3Code) {
      __m512i codes = _mm512_and_si512(pairs_unsigned(from + i).v, _mm512_set1_epi16(0x7f));
      __mmask32 none = _mm512_cmpeq_epi16_mask(codes, _mm512_set1_epi16(0x7f));
      numbers = _mm512_mask_set1_epi16(pairs_from_fp8(from + i).v, none, 0x7fc0);
    } else if (kind == kE5m2Code) {
      __m512i halves = _mm512_slli_epi16(pairs_unsigned(from + i).v, 8);  // the upper bytes of float16
      __m512 low = _mm512_cvtph_ps(_mm512_castsi512_si256(halves));
      __m512 high = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(halves, 1));
      numbers = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    } else {
      __m512 low = to_float(load8((const int8_t*)from + i)).v;
      __m512 high = to_float(load8((const int8_t*)from + i + 16)).v;
      numbers = (__m512i)_mm512_cvtne2ps_pbh(high, low);
    }
    _mm512_storeu_si512(to + i, numbers);
  }
}

// The sum is of the rounded weights.
QUIRE_INLINE vf put_weights(bf16, vf low, vf high, vf sum, uint32_t* out) {
  __m512bh rounded = _mm512_cvtne2ps_pbh(high.v, low.v);
  _mm512_storeu_si512(out, (__m512i)rounded);
  return {_mm512_dpbf16_ps(sum.v, rounded, pair_of(0x3f803f80))};
}

}  // namespace quire
