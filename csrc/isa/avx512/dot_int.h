// Pairs of 16-bit integers in 32-bit lanes, and how stored bytes become them; AVX-512 with VNNI.
#pragma once
#include "dot.h"

namespace quire {

// c + low(a) * low(b) + high(a) * high(b), exactly. Not by its intrinsic, before and after which GCC 12
// copies c.
QUIRE_INLINE vi dot_pairs(vi a, vi b, vi c) {
  __asm__("vpdpwssd %2, %1, %0" : "+v"(c.v) : "v"(a.v), "v"(b.v));
  return c;
}

// 32 signed bytes as pairs; 32 bytes as pairs of numbers from 0 to 255.
QUIRE_INLINE vi pairs_signed(const uint8_t* p) {
  return {_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p))};
}
QUIRE_INLINE vi pairs_unsigned(const uint8_t* p) {
  return {_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p))};
}
// Of pairs of numbers up to 255: what lies above the low four bits.
QUIRE_INLINE vi high_nibbles(vi pairs) { return {_mm512_srli_epi16(pairs.v, 4)}; }
// Pair by pair, the low 16 bits of each result.
QUIRE_INLINE vi mul_pairs(vi a, vi b) { return {_mm512_mullo_epi16(a.v, b.v)}; }
QUIRE_INLINE vi sub_pairs(vi a, vi b) { return {_mm512_sub_epi16(a.v, b.v)}; }

// Whether numbers are multiplied crosswise, see quantized.h: AMD's cores do two sums of 16 bits beside a product,
// Intel's have the same units for both.
const bool kCrosses = true;
QUIRE_INLINE bool sums_are_cheap() { return __builtin_cpu_is("amd"); }
QUIRE_INLINE vi add_pairs(vi a, vi b) { return {_mm512_add_epi16(a.v, b.v)}; }

// Four signed bytes in each lane, and c + their products with four bytes from 0 to 255, exactly.
struct Quads { __m512i v; };
QUIRE_INLINE Quads quads_signed(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
QUIRE_INLINE vi dot_quads(uint32_t bytes, Quads w, vi c) {
  return {_mm512_dpbusd_epi32(c.v, _mm512_set1_epi32((int32_t)bytes), w.v)};
}

// 32 numbers of float8 e4m3 as pairs of bfloat16, exactly; 0x7f and 0xff become 480 with the sign.
QUIRE_INLINE vi pairs_from_fp8(const uint8_t* p) {
  const __m512i subnormals = _mm512_zextsi128_si512(_mm_setr_epi16(  // m * 2^-9
      0, 0x3b00, 0x3b80, 0x3bc0, 0x3c00, 0x3c20, 0x3c40, 0x3c60));
  __m512i raw = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p));
  __mmask32 small = _mm512_testn_epi16_mask(raw, _mm512_set1_epi16(0x78));
  __m512i code = _mm512_and_si512(raw, _mm512_set1_epi16(0x7f));
  __m512i value = _mm512_add_epi16(_mm512_slli_epi16(code, 4), _mm512_set1_epi16(0x3c00));
  value = _mm512_mask_permutexvar_epi16(value, small, code, subnormals);
  // value | (raw << 8 & 0x8000)
  return {_mm512_ternarylogic_epi32(value, _mm512_slli_epi16(raw, 8), _mm512_set1_epi16((short)0x8000), 0xf8)};
}

}  // namespace quire
