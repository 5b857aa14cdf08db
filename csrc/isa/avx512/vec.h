// Sixteen lanes of float32 or int32 in one AVX-512 register.
#pragma once
#include <immintrin.h>
#include <stdint.h>

#include "team.h"

#ifndef QUIRE_ISA
#define QUIRE_ISA "avx512"
#endif

namespace quire {

struct vf { __m512 v; };
struct vi { __m512i v; };
typedef __mmask16 vm;  // bit i is lane i

QUIRE_INLINE void cpu_relax() { _mm_pause(); }

QUIRE_INLINE vm first(int n) { return (vm)(n >= 16 ? 0xffffu : (1u << n) - 1u); }
QUIRE_INLINE bool any(vm m) { return m != 0; }
QUIRE_INLINE uint32_t bits(vm m) { return m; }
QUIRE_INLINE vm from_bits(uint32_t b) { return (vm)b; }
QUIRE_INLINE vm both(vm a, vm b) { return a & b; }

QUIRE_INLINE vf vf_set(float x) { return {_mm512_set1_ps(x)}; }
QUIRE_INLINE vf vf_zero() { return {_mm512_setzero_ps()}; }
QUIRE_INLINE vi vi_set(int32_t x) { return {_mm512_set1_epi32(x)}; }
QUIRE_INLINE vi vi_iota() { return {_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)}; }

QUIRE_INLINE vf load(const float* p) { return {_mm512_loadu_ps(p)}; }
QUIRE_INLINE void store(float* p, vf a) { _mm512_storeu_ps(p, a.v); }
// Lanes from n on are zero, and their memory is not touched.
QUIRE_INLINE vf load(const float* p, int n) { return {_mm512_maskz_loadu_ps(first(n), p)}; }
QUIRE_INLINE void store(float* p, vf a, int n) { _mm512_mask_storeu_ps(p, first(n), a.v); }
QUIRE_INLINE vi load(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
QUIRE_INLINE vi load(const int32_t* p, int n) { return {_mm512_maskz_loadu_epi32(first(n), p)}; }
QUIRE_INLINE void store(int32_t* p, vi a) { _mm512_storeu_si512(p, a.v); }
QUIRE_INLINE void store(int32_t* p, vi a, int n) { _mm512_mask_storeu_epi32(p, first(n), a.v); }
// Sixteen 16-bit numbers, widened with zeros; and the low halves of lanes.
QUIRE_INLINE vi load16(const uint16_t* p) { return {_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p))}; }
QUIRE_INLINE vi load16(const uint16_t* p, int n) { return {_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(first(n), p))}; }
QUIRE_INLINE void store16(uint16_t* p, vi a) { _mm256_storeu_si256((__m256i*)p, _mm512_cvtepi32_epi16(a.v)); }
QUIRE_INLINE void store16(uint16_t* p, vi a, int n) { _mm256_mask_storeu_epi16(p, first(n), _mm512_cvtepi32_epi16(a.v)); }
// Sixteen signed bytes, widened; and the low bytes of lanes.
QUIRE_INLINE vi load8(const int8_t* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
QUIRE_INLINE vi load8(const int8_t* p, int n) { return {_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(first(n), p))}; }
QUIRE_INLINE void store8(int8_t* p, vi a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(a.v)); }
QUIRE_INLINE void store8(int8_t* p, vi a, int n) { _mm_mask_storeu_epi8(p, first(n), _mm512_cvtepi32_epi8(a.v)); }

QUIRE_INLINE vf operator+(vf a, vf b) { return {_mm512_add_ps(a.v, b.v)}; }
QUIRE_INLINE vf operator-(vf a, vf b) { return {_mm512_sub_ps(a.v, b.v)}; }
QUIRE_INLINE vf operator*(vf a, vf b) { return {_mm512_mul_ps(a.v, b.v)}; }
QUIRE_INLINE vf operator/(vf a, vf b) { return {_mm512_div_ps(a.v, b.v)}; }
QUIRE_INLINE vf fma(vf a, vf b, vf c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
QUIRE_INLINE vf max(vf a, vf b) { return {_mm512_max_ps(a.v, b.v)}; }  // b where either is NaN
QUIRE_INLINE vf min(vf a, vf b) { return {_mm512_min_ps(a.v, b.v)}; }
QUIRE_INLINE vf sqrt(vf a) { return {_mm512_sqrt_ps(a.v)}; }
QUIRE_INLINE vf round(vf a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }

QUIRE_INLINE vm less(vf a, vf b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ); }
QUIRE_INLINE vm less_equal(vf a, vf b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_LE_OQ); }
QUIRE_INLINE vm equal(vf a, vf b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ); }
QUIRE_INLINE vm is_nan(vf a) { return _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q); }
QUIRE_INLINE vf select(vm m, vf a, vf b) { return {_mm512_mask_blend_ps(m, b.v, a.v)}; }  // m ? a : b

QUIRE_INLINE vi operator+(vi a, vi b) { return {_mm512_add_epi32(a.v, b.v)}; }
QUIRE_INLINE vi operator-(vi a, vi b) { return {_mm512_sub_epi32(a.v, b.v)}; }
QUIRE_INLINE vi operator*(vi a, vi b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
QUIRE_INLINE vi operator&(vi a, vi b) { return {_mm512_and_si512(a.v, b.v)}; }
QUIRE_INLINE vi operator|(vi a, vi b) { return {_mm512_or_si512(a.v, b.v)}; }
QUIRE_INLINE vi operator^(vi a, vi b) { return {_mm512_xor_si512(a.v, b.v)}; }
template <int N> QUIRE_INLINE vi shift_left(vi a) { return {_mm512_slli_epi32(a.v, N)}; }
template <int N> QUIRE_INLINE vi shift_right(vi a) { return {_mm512_srli_epi32(a.v, N)}; }  // zeros enter
template <int N> QUIRE_INLINE vi shift_right_signed(vi a) { return {_mm512_srai_epi32(a.v, N)}; }
QUIRE_INLINE vm less(vi a, vi b) { return _mm512_cmplt_epi32_mask(a.v, b.v); }
QUIRE_INLINE vm equal(vi a, vi b) { return _mm512_cmpeq_epi32_mask(a.v, b.v); }
QUIRE_INLINE vi select(vm m, vi a, vi b) { return {_mm512_mask_blend_epi32(m, b.v, a.v)}; }

QUIRE_INLINE vi to_int(vf a) { return {_mm512_cvtps_epi32(a.v)}; }  // to nearest, ties to even
QUIRE_INLINE vf to_float(vi a) { return {_mm512_cvtepi32_ps(a.v)}; }
QUIRE_INLINE vi as_int(vf a) { return {_mm512_castps_si512(a.v)}; }
QUIRE_INLINE vf as_float(vi a) { return {_mm512_castsi512_ps(a.v)}; }

// float16 in the low halves of lanes.
QUIRE_INLINE vf from_half(vi a) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a.v))}; }
QUIRE_INLINE vi to_half(vf a) { return {_mm512_cvtepu16_epi32(_mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC))}; }

}  // namespace quire
