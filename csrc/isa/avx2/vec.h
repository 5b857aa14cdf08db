// Sixteen lanes of float32 or int32 in two AVX2 registers; needs FMA and F16C.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "team.h"

#define QUIRE_ISA "avx2"

namespace quire {

struct vf { __m256 a, b; };
struct vi { __m256i a, b; };
struct vm { __m256i a, b; };  // all ones in the lanes that are set

QUIRE_INLINE void cpu_relax() { _mm_pause(); }

QUIRE_INLINE __m256i iota8(int from) {
  return _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(from));
}
QUIRE_INLINE vm first(int n) {
  __m256i limit = _mm256_set1_epi32(n);
  return {_mm256_cmpgt_epi32(limit, iota8(0)), _mm256_cmpgt_epi32(limit, iota8(8))};
}
QUIRE_INLINE uint32_t bits(vm m) {
  return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m.a)) |
         (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(m.b)) << 8;
}
QUIRE_INLINE bool any(vm m) { return bits(m) != 0; }
QUIRE_INLINE vm from_bits(uint32_t b) {
  const __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  __m256i low = _mm256_and_si256(_mm256_set1_epi32((int)b), bit);
  __m256i high = _mm256_and_si256(_mm256_set1_epi32((int)(b >> 8)), bit);
  return {_mm256_cmpeq_epi32(low, bit), _mm256_cmpeq_epi32(high, bit)};
}
QUIRE_INLINE vm both(vm x, vm y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }

QUIRE_INLINE vf vf_set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
QUIRE_INLINE vf vf_zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
QUIRE_INLINE vi vi_set(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
QUIRE_INLINE vi vi_iota() { return {iota8(0), iota8(8)}; }

QUIRE_INLINE vf load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
QUIRE_INLINE void store(float* p, vf x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
// Lanes from n on are zero, and their memory is not touched.
QUIRE_INLINE vf load(const float* p, int n) {
  vm m = first(n);
  return {_mm256_maskload_ps(p, m.a), _mm256_maskload_ps(p + 8, m.b)};
}
QUIRE_INLINE void store(float* p, vf x, int n) {
  vm m = first(n);
  _mm256_maskstore_ps(p, m.a, x.a);
  _mm256_maskstore_ps(p + 8, m.b, x.b);
}
QUIRE_INLINE vi load(const int32_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 8))};
}
QUIRE_INLINE vi load(const int32_t* p, int n) {
  vm m = first(n);
  return {_mm256_maskload_epi32(p, m.a), _mm256_maskload_epi32(p + 8, m.b)};
}
QUIRE_INLINE void store(int32_t* p, vi x) {
  _mm256_storeu_si256((__m256i*)p, x.a);
  _mm256_storeu_si256((__m256i*)(p + 8), x.b);
}
QUIRE_INLINE void store(int32_t* p, vi x, int n) {
  vm m = first(n);
  _mm256_maskstore_epi32(p, m.a, x.a);
  _mm256_maskstore_epi32(p + 8, m.b, x.b);
}
// Sixteen 16-bit numbers, widened with zeros; and the low halves of lanes.
QUIRE_INLINE vi load16(const uint16_t* p) {
  return {_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
QUIRE_INLINE vi load16(const uint16_t* p, int n) {
  if (n >= 16) return load16(p);
  uint16_t room[16] = {};
  for (int i = 0; i < n; i++) room[i] = p[i];
  return load16(room);
}
QUIRE_INLINE __m256i halves(vi x) {  // low halves of the 16 lanes, in order
  const __m256i low = _mm256_set1_epi32(0xffff);
  __m256i packed = _mm256_packus_epi32(_mm256_and_si256(x.a, low), _mm256_and_si256(x.b, low));
  return _mm256_permute4x64_epi64(packed, 0xd8);
}
QUIRE_INLINE void store16(uint16_t* p, vi x) { _mm256_storeu_si256((__m256i*)p, halves(x)); }
QUIRE_INLINE void store16(uint16_t* p, vi x, int n) {
  if (n >= 16) return store16(p, x);
  uint16_t room[16];
  store16(room, x);
  for (int i = 0; i < n; i++) p[i] = room[i];
}
// Sixteen signed bytes, widened; and the low bytes of lanes.
QUIRE_INLINE vi load8(const int8_t* p) {
  __m128i x = _mm_loadu_si128((const __m128i*)p);
  return {_mm256_cvtepi8_epi32(x), _mm256_cvtepi8_epi32(_mm_srli_si128(x, 8))};
}
QUIRE_INLINE vi load8(const int8_t* p, int n) {
  if (n >= 16) return load8(p);
  int8_t room[16] = {};
  for (int i = 0; i < n; i++) room[i] = p[i];
  return load8(room);
}
QUIRE_INLINE void store8(int8_t* p, vi x) {
  __m256i wide = _mm256_and_si256(halves(x), _mm256_set1_epi16(0xff));
  _mm_storeu_si128((__m128i*)p, _mm_packus_epi16(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1)));
}
QUIRE_INLINE void store8(int8_t* p, vi x, int n) {
  if (n >= 16) return store8(p, x);
  int8_t room[16];
  store8(room, x);
  for (int i = 0; i < n; i++) p[i] = room[i];
}

#define QUIRE_TWO(T, name, f) QUIRE_INLINE T name(T x, T y) { return {f(x.a, y.a), f(x.b, y.b)}; }
QUIRE_TWO(vf, operator+, _mm256_add_ps)
QUIRE_TWO(vf, operator-, _mm256_sub_ps)
QUIRE_TWO(vf, operator*, _mm256_mul_ps)
QUIRE_TWO(vf, operator/, _mm256_div_ps)
QUIRE_TWO(vf, max, _mm256_max_ps)  // the second where either is NaN
QUIRE_TWO(vf, min, _mm256_min_ps)
QUIRE_TWO(vi, operator+, _mm256_add_epi32)
QUIRE_TWO(vi, operator-, _mm256_sub_epi32)
QUIRE_TWO(vi, operator*, _mm256_mullo_epi32)
QUIRE_TWO(vi, operator&, _mm256_and_si256)
QUIRE_TWO(vi, operator|, _mm256_or_si256)
QUIRE_TWO(vi, operator^, _mm256_xor_si256)
#undef QUIRE_TWO
QUIRE_INLINE vf fma(vf x, vf y, vf z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
QUIRE_INLINE vf sqrt(vf x) { return {_mm256_sqrt_ps(x.a), _mm256_sqrt_ps(x.b)}; }
QUIRE_INLINE vf round(vf x) {
  const int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(x.a, mode), _mm256_round_ps(x.b, mode)};
}

template <int OP> QUIRE_INLINE vm compare(vf x, vf y) {
  return {_mm256_castps_si256(_mm256_cmp_ps(x.a, y.a, OP)), _mm256_castps_si256(_mm256_cmp_ps(x.b, y.b, OP))};
}
QUIRE_INLINE vm less(vf x, vf y) { return compare<_CMP_LT_OQ>(x, y); }
QUIRE_INLINE vm less_equal(vf x, vf y) { return compare<_CMP_LE_OQ>(x, y); }
QUIRE_INLINE vm equal(vf x, vf y) { return compare<_CMP_EQ_OQ>(x, y); }
QUIRE_INLINE vm is_nan(vf x) { return compare<_CMP_UNORD_Q>(x, x); }
QUIRE_INLINE vf select(vm m, vf x, vf y) {  // m ? x : y
  return {_mm256_blendv_ps(y.a, x.a, _mm256_castsi256_ps(m.a)), _mm256_blendv_ps(y.b, x.b, _mm256_castsi256_ps(m.b))};
}
template <int N> QUIRE_INLINE vi shift_left(vi x) { return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)}; }
template <int N> QUIRE_INLINE vi shift_right(vi x) { return {_mm256_srli_epi32(x.a, N), _mm256_srli_epi32(x.b, N)}; }
template <int N> QUIRE_INLINE vi shift_right_signed(vi x) { return {_mm256_srai_epi32(x.a, N), _mm256_srai_epi32(x.b, N)}; }
QUIRE_INLINE vm less(vi x, vi y) { return {_mm256_cmpgt_epi32(y.a, x.a), _mm256_cmpgt_epi32(y.b, x.b)}; }
QUIRE_INLINE vm equal(vi x, vi y) { return {_mm256_cmpeq_epi32(x.a, y.a), _mm256_cmpeq_epi32(x.b, y.b)}; }
QUIRE_INLINE vi select(vm m, vi x, vi y) {
  return {_mm256_blendv_epi8(y.a, x.a, m.a), _mm256_blendv_epi8(y.b, x.b, m.b)};
}

QUIRE_INLINE vi to_int(vf x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
QUIRE_INLINE vf to_float(vi x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
QUIRE_INLINE vi as_int(vf x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
QUIRE_INLINE vf as_float(vi x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }

// float16 in the low halves of lanes.
QUIRE_INLINE vf from_half(vi x) {
  __m256i packed = halves(x);
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(packed)), _mm256_cvtph_ps(_mm256_extracti128_si256(packed, 1))};
}
QUIRE_INLINE vi to_half(vf x) {
  const int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_cvtepu16_epi32(_mm256_cvtps_ph(x.a, mode)), _mm256_cvtepu16_epi32(_mm256_cvtps_ph(x.b, mode))};
}

}  // namespace quire
