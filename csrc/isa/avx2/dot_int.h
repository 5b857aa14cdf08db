// Pairs of 16-bit integers in 32-bit lanes, and how stored bytes become them; AVX2.
#pragma once
#include "dot.h"

namespace quire {

// c + low(a) * low(b) + high(a) * high(b), exactly.
QUIRE_INLINE vi dot_pairs(vi a, vi b, vi c) {
  return {_mm256_add_epi32(c.a, _mm256_madd_epi16(a.a, b.a)),
          _mm256_add_epi32(c.b, _mm256_madd_epi16(a.b, b.b))};
}

// 32 signed bytes as pairs; 32 bytes as pairs of numbers from 0 to 255.
QUIRE_INLINE vi pairs_signed(const uint8_t* p) {
  return {_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(p + 16)))};
}
QUIRE_INLINE vi pairs_unsigned(const uint8_t* p) {
  return {_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p)),
          _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)(p + 16)))};
}
// Of pairs of numbers up to 255: what lies above the low four bits.
QUIRE_INLINE vi high_nibbles(vi pairs) {
  return {_mm256_srli_epi16(pairs.a, 4), _mm256_srli_epi16(pairs.b, 4)};
}
// Pair by pair, the low 16 bits of each result.
QUIRE_INLINE vi mul_pairs(vi a, vi b) {
  return {_mm256_mullo_epi16(a.a, b.a), _mm256_mullo_epi16(a.b, b.b)};
}
QUIRE_INLINE vi sub_pairs(vi a, vi b) {
  return {_mm256_sub_epi16(a.a, b.a), _mm256_sub_epi16(a.b, b.b)};
}

// Whether numbers are multiplied crosswise, see quantized.h: here the other way is as quick.
const bool kCrosses = false;
QUIRE_INLINE bool sums_are_cheap() { return false; }
QUIRE_INLINE vi add_pairs(vi a, vi b) { return {_mm256_add_epi16(a.a, b.a), _mm256_add_epi16(a.b, b.b)}; }

// 32 numbers, of which each lane of a and then of b holds one, as pairs; and each odd lane in the place of the even one
// before it, zeros in its own.
QUIRE_INLINE vi pairs_of(vi a, vi b) {
  return {_mm256_permute4x64_epi64(_mm256_packs_epi32(a.a, a.b), 0xd8),
          _mm256_permute4x64_epi64(_mm256_packs_epi32(b.a, b.b), 0xd8)};
}
QUIRE_INLINE vi odd_lanes(vi a) { return {_mm256_srli_epi64(a.a, 32), _mm256_srli_epi64(a.b, 32)}; }

// Four signed bytes in each lane, as pairs of the even and of the odd ones.
struct Quads { vi even, odd; };
QUIRE_INLINE Quads quads_signed(const uint8_t* p) {
  vi raw = load((const int32_t*)p), even = {_mm256_slli_epi16(raw.a, 8), _mm256_slli_epi16(raw.b, 8)};
  return {{_mm256_srai_epi16(even.a, 8), _mm256_srai_epi16(even.b, 8)},
          {_mm256_srai_epi16(raw.a, 8), _mm256_srai_epi16(raw.b, 8)}};
}
// c + the products with four bytes from 0 to 255, exactly.
QUIRE_INLINE vi dot_quads(uint32_t bytes, Quads w, vi c) {
  c = dot_pairs(vi_set((int32_t)(bytes & 0x00ff00ff)), w.even, c);
  return dot_pairs(vi_set((int32_t)(bytes >> 8 & 0x00ff00ff)), w.odd, c);
}

// c + the products of four bytes from 0 to 63 of each lane with four signed ones, exactly.
QUIRE_INLINE vi dot_bytes(vi codes, vi signed_bytes, vi c) {
  const vi pairs = {_mm256_maddubs_epi16(codes.a, signed_bytes.a), _mm256_maddubs_epi16(codes.b, signed_bytes.b)};
  return dot_pairs(pairs, vi_set(0x10001), c);
}

// The same of bytes up to 255, whose products in pairs need more than 16 bits.
QUIRE_INLINE vi dot_whole_bytes(vi codes, vi signed_bytes, vi c) {
  const vi even = {_mm256_slli_epi16(signed_bytes.a, 8), _mm256_slli_epi16(signed_bytes.b, 8)};
  c = dot_pairs(codes & vi_set(0x00ff00ff), {_mm256_srai_epi16(even.a, 8), _mm256_srai_epi16(even.b, 8)}, c);
  return dot_pairs({_mm256_srli_epi16(codes.a, 8), _mm256_srli_epi16(codes.b, 8)},
                   {_mm256_srai_epi16(signed_bytes.a, 8), _mm256_srai_epi16(signed_bytes.b, 8)}, c);
}

}  // namespace quire

#include "plain_fp8.h"
#include "plain_sums.h"
