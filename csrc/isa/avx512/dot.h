// Products of a few rows with a block of 32 columns, in registers; AVX-512 with BF16.
#pragma once
#include "numbers.h"

namespace quire {

#define QUIRE_MAX_ROWS 12
const int kRows = QUIRE_MAX_ROWS;  // rows of one product: 24 sums, two columns' registers and a row's number

// Rows as the kernels want them: for each step of two k a pair of numbers of each row.
typedef uint32_t PackedBf16;

QUIRE_INLINE void pack_row(const bf16* x, int64_t K, int64_t steps, int rows, PackedBf16* out) {
  int64_t whole = K / 2;
  for (int64_t s = 0; s < whole; s++) __builtin_memcpy(out + s * rows, x + 2 * s, 4);
  if (K % 2) out[whole * rows] = x[K - 1].bits;
  for (int64_t s = (K + 1) / 2; s < steps; s++) out[s * rows] = 0;
}

// C [R][32] (+)= A [steps][R] pairs times B [steps][32][2], in the order of the steps.
template <int R>
QUIRE_INLINE void tile(const PackedBf16* A, const bf16* B, int64_t steps, float* C, bool fresh,
                       const char* ahead, int64_t ahead_step) {
  __m512 c[R][2];
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++)
      c[i][j] = fresh ? _mm512_setzero_ps() : _mm512_loadu_ps(C + 32 * i + 16 * j);
  for (int64_t s = 0; s < steps; s++) {
    __m512bh b0 = (__m512bh)_mm512_loadu_si512(B + 64 * s);
    __m512bh b1 = (__m512bh)_mm512_loadu_si512(B + 64 * s + 32);
    for (int i = 0; i < R; i++) {
      __m512bh a = (__m512bh)_mm512_set1_epi32((int)A[s * R + i]);
      c[i][0] = _mm512_dpbf16_ps(c[i][0], a, b0);
      c[i][1] = _mm512_dpbf16_ps(c[i][1], a, b1);
    }
    _mm_prefetch(ahead, _MM_HINT_T0);
    _mm_prefetch(ahead + 64, _MM_HINT_T0);
    ahead += ahead_step;
  }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) _mm512_storeu_ps(C + 32 * i + 16 * j, c[i][j]);
}

// The same in float32: A [steps][R], B [steps][32] of float32 or float16.
template <int R, class T>
QUIRE_INLINE void tile(const float* A, const T* B, int64_t steps, float* C, bool fresh,
                       const char* ahead, int64_t ahead_step) {
  vf c[R][2];
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) c[i][j] = fresh ? vf_zero() : load(C + 32 * i + 16 * j);
  for (int64_t s = 0; s < steps; s++) {
    vf b0 = load(B + 32 * s), b1 = load(B + 32 * s + 16);
    for (int i = 0; i < R; i++) {
      vf a = vf_set(A[s * R + i]);
      c[i][0] = fma(a, b0, c[i][0]);
      c[i][1] = fma(a, b1, c[i][1]);
    }
    _mm_prefetch(ahead, _MM_HINT_T0);
    _mm_prefetch(ahead + 64, _MM_HINT_T0);
    ahead += ahead_step;
  }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) store(C + 32 * i + 16 * j, c[i][j]);
}

// One multiply-add of a register of a type, as the kernels of that type do it: 32 bfloat16 or 16
// float32; and what hinders the compiler from doing it once.
template <class T> QUIRE_INLINE vf dot_step(T, vf a, vf b, vf c) { return fma(a, b, c); }
QUIRE_INLINE vf dot_step(bf16, vf a, vf b, vf c) {
  return {_mm512_dpbf16_ps(c.v, (__m512bh)a.v, (__m512bh)b.v)};
}
QUIRE_INLINE void keep(vf& a) { __asm__ volatile("" : "+v"(a.v)); }

}  // namespace quire
