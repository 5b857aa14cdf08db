// Register kernels of attention for a few rows and one tile of 32 keys, in float32 lanes.
//
// Keys lie in two cells [steps][16], values of sixteen tokens each in rows of `stride` numbers. A sum
// runs over its terms in rising order for every number of rows R and of vectors C.
#pragma once
#include "functions.h"
#include "numbers.h"

namespace quire {

// What a stored type makes of queries and weights; a step covers `per` numbers of a key, or tokens.
template <class T> struct Kind {
  typedef float Query;
  typedef float Weight;
  typedef T Unit;  // what one step holds of one token or column
  static const int per = 1;
  static const int row = 32;  // Weights of one row of a tile
};

// Whether products of a type are made in tile registers, and how; see isa/amx.
template <class T> struct Tiled { static const bool is = false; };

#ifndef QUIRE_HAS_SCALED
// x 2^n for whole n <= 0; 0 where 2^n is below the normal range.
QUIRE_INLINE vf scaled(vf x, vf n) {
  vf power = as_float(shift_left<23>(to_int(max(vf_set(-126.0f), n)) + vi_set(127)));
  return select(less(n, vf_set(-126.0f)), vf_zero(), x * power);
}
#endif

QUIRE_INLINE void fetch(const char* p) { __builtin_prefetch(p, 0, 2); }

// Where the data of the next tile begin, brought nearer at the pace of this one.
struct Ahead { const char* keys[2]; const char* values[2]; };

template <class T>
QUIRE_INLINE void pack_query(const T* x, int64_t size, int64_t, int rows, float* out) {
  for (int64_t k = 0; k < size; k += 16) {
    float lanes[16];
    int n = size - k < 16 ? (int)(size - k) : 16;
    store(lanes, load(x + k, n));
    for (int i = 0; i < n; i++) out[(k + i) * rows] = lanes[i];
  }
}

// Scores [R][32] = queries [steps][R] times keys.
template <int R, class T>
QUIRE_INLINE void score(const float* q, const T* const k[2], int64_t steps, float* out,
                        const Ahead& ahead) {
  vf c[R][2];
  for (int i = 0; i < R; i++) c[i][0] = c[i][1] = vf_zero();
  for (int64_t s = 0; s < steps; s++) {
    vf b0 = load(k[0] + 16 * s), b1 = load(k[1] + 16 * s);
    for (int i = 0; i < R; i++) {
      vf a = vf_set(q[s * R + i]);
      c[i][0] = fma(a, b0, c[i][0]);
      c[i][1] = fma(a, b1, c[i][1]);
    }
    fetch(ahead.keys[0] + 16 * s * sizeof(T));
    fetch(ahead.keys[1] + 16 * s * sizeof(T));
  }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) store(out + 32 * i + 16 * j, c[i][j]);
}

// 2^x for x <= 0, to about one unit in the last place: 2^n (1 + r P(r)) with |r| <= 1/2, P of degree
// 5 fitted here. Exactly 1 for 0, 0 below -150 (or below the normal range), NaN for NaN.
QUIRE_INLINE vf power(vf x) {
  vf in = max(vf_set(-160.0f), x);
  vf n = round(in), r = in - n;
  vf p = vf_set(1.5353362e-4f);
  p = fma(p, r, vf_set(1.3398875e-3f));
  p = fma(p, r, vf_set(9.6184369e-3f));
  p = fma(p, r, vf_set(5.5503324e-2f));
  p = fma(p, r, vf_set(0.24022648f));
  p = fma(p, r, vf_set(0.69314718f));
  return scaled(fma(p, r, vf_set(1.0f)), n);
}

// A row's sums before a tile: nothing, or what there was times `keep` (none where that is null).
QUIRE_INLINE vf begin_sum(const float* sum, const float* keep, bool fresh) {
  if (fresh) return vf_zero();
  return keep ? load(sum) * vf_set(*keep) : load(sum);
}

// Sums [R][C vectors] = sums * keep + weights [R][32] times `steps` rows of values from column `at` on.
template <int R, int C, class T>
QUIRE_INLINE void mix(const float* weights, const T* const v[2], int64_t steps, int64_t stride, int64_t at,
                      float* sums, const float* keep, bool fresh, const Ahead& ahead) {
  vf c[R][C];
  for (int i = 0; i < R; i++)
    for (int j = 0; j < C; j++)
      c[i][j] = begin_sum(sums + i * stride + 16 * j + at, keep ? keep + i : nullptr, fresh);
  for (int64_t s = 0; s < steps; s++) {
    const T* row = v[s / 16] + s % 16 * stride + at;
    const char* next = ahead.values[s / 16] + (s % 16 * stride + at) * sizeof(T);
    if (R < C) {
      vf a[R];
      for (int i = 0; i < R; i++) a[i] = vf_set(weights[32 * i + s]);
      for (int j = 0; j < C; j++) {
        vf b = load(row + 16 * j);
        for (int i = 0; i < R; i++) c[i][j] = fma(a[i], b, c[i][j]);
      }
    } else {
      vf b[C];
      for (int j = 0; j < C; j++) b[j] = load(row + 16 * j);
      for (int i = 0; i < R; i++) {
        vf a = vf_set(weights[32 * i + s]);
        for (int j = 0; j < C; j++) c[i][j] = fma(a, b[j], c[i][j]);
      }
    }
    for (size_t line = 0; line < 16 * C * sizeof(T); line += 64) fetch(next + line);
  }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < C; j++) store(sums + i * stride + 16 * j + at, c[i][j]);
}

// Puts away a row's weights of a tile; returns `sum` and what was added, lane by lane.
template <class T> QUIRE_INLINE vf put_weights(T, vf low, vf high, vf sum, float* out) {
  store(out, low);
  store(out + 16, high);
  return sum + (low + high);
}

}  // namespace quire
