// Products of a few rows with a block of 32 columns by float32 arithmetic alone.
#pragma once
#include "numbers.h"

namespace quire {

// Rows as the kernels want them: for each step of two k two float32 of each row.
struct PackedBf16 { float k[2]; };

QUIRE_INLINE void pack_row(const bf16* x, int64_t K, int64_t steps, int rows, PackedBf16* out) {
  for (int64_t s = 0; s < steps; s++)
    for (int d = 0; d < 2; d++) {
      int64_t k = 2 * s + d;
      union { uint32_t raw; float value; } number = {k < K ? (uint32_t)x[k].bits << 16 : 0};
      out[s * rows].k[d] = number.value;
    }
}

// C [R][32] (+)= A [steps][R] pairs times B [steps][32][2], in the order of the steps.
template <int R>
QUIRE_INLINE void tile(const PackedBf16* A, const bf16* B, int64_t steps, float* C, bool fresh,
                       const char*, int64_t) {
  vf c[R][2];
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) c[i][j] = fresh ? vf_zero() : load(C + 32 * i + 16 * j);
  for (int64_t s = 0; s < steps; s++)
    for (int j = 0; j < 2; j++) {
      vi pairs = load((const int32_t*)(B + 64 * s + 32 * j));
      vf low = as_float(shift_left<16>(pairs)), high = as_float(pairs & vi_set((int32_t)0xffff0000));
      for (int i = 0; i < R; i++) {
        c[i][j] = fma(vf_set(A[s * R + i].k[0]), low, c[i][j]);
        c[i][j] = fma(vf_set(A[s * R + i].k[1]), high, c[i][j]);
      }
    }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) store(C + 32 * i + 16 * j, c[i][j]);
}

// The same for A [steps][R] float32 and B [steps][32] of float32 or float16.
template <int R, class T>
QUIRE_INLINE void tile(const float* A, const T* B, int64_t steps, float* C, bool fresh,
                       const char*, int64_t) {
  vf c[R][2];
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) c[i][j] = fresh ? vf_zero() : load(C + 32 * i + 16 * j);
  for (int64_t s = 0; s < steps; s++)
    for (int j = 0; j < 2; j++) {
      vf b = load(B + 32 * s + 16 * j);
      for (int i = 0; i < R; i++) c[i][j] = fma(vf_set(A[s * R + i]), b, c[i][j]);
    }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) store(C + 32 * i + 16 * j, c[i][j]);
}

// One multiply-add of a register, and what hinders the compiler from doing it once.
template <class T> QUIRE_INLINE vf dot_step(T, vf a, vf b, vf c) { return fma(a, b, c); }
QUIRE_INLINE void keep(vf& a) { __asm__ volatile("" : "+m"(a)); }

}  // namespace quire
