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

// 32 numbers, of which each lane of a and then of b holds one, as pairs; and each odd lane in the place of the even one
// before it, zeros in its own.
QUIRE_INLINE vi pairs_of(vi a, vi b) {
  return {_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(a.v)), _mm512_cvtepi32_epi16(b.v), 1)};
}
QUIRE_INLINE vi odd_lanes(vi a) { return {_mm512_srli_epi64(a.v, 32)}; }

// Of each of four registers the sum of lanes 0 to 7 and that of lanes 8 to 15, register by register.
QUIRE_INLINE void add_halves(const vi v[4], int32_t* out) {
  const auto two = [](vi a, vi b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a.v, b.v), _mm512_unpackhi_epi32(a.v, b.v));
  };
  const __m512i a = two(v[0], v[1]), b = two(v[2], v[3]);
  const __m512i c = _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
  const __m256i low = _mm512_castsi512_si256(c), high = _mm512_extracti64x4_epi64(c, 1);
  const __m128i first = _mm_add_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1));
  const __m128i second = _mm_add_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
  _mm_storeu_si128((__m128i*)out, _mm_unpacklo_epi32(first, second));
  _mm_storeu_si128((__m128i*)(out + 4), _mm_unpackhi_epi32(first, second));
}
QUIRE_INLINE vi max(vi a, vi b) { return {_mm512_max_epi32(a.v, b.v)}; }
QUIRE_INLINE int32_t largest(vi a) { return _mm512_reduce_max_epi32(a.v); }

// Four signed bytes in each lane, and c + their products with four bytes from 0 to 255, exactly.
struct Quads { __m512i v; };
QUIRE_INLINE Quads quads_signed(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
QUIRE_INLINE vi dot_quads(uint32_t bytes, Quads w, vi c) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(c.v) : "v"(_mm512_set1_epi32((int32_t)bytes)), "v"(w.v));
  return c;
}

// c + the products of four bytes from 0 to 63 of each lane with four signed ones, exactly.
QUIRE_INLINE vi dot_bytes(vi codes, vi signed_bytes, vi c) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(c.v) : "v"(codes.v), "v"(signed_bytes.v));
  return c;
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
