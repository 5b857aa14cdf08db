// Eight lanes of 64 bits in two AVX2 registers, for words of 32 bits and their products.
#pragma once
#include "vec.h"

namespace quire {

struct vw { __m256i a, b; };

QUIRE_INLINE vw vw_set(uint64_t x) {
  return {_mm256_set1_epi64x((int64_t)x), _mm256_set1_epi64x((int64_t)x)};
}
QUIRE_INLINE vw vw_even(uint32_t from) {  // from, from + 2, ...
  __m256i base = _mm256_set1_epi64x(from);
  return {_mm256_add_epi64(base, _mm256_setr_epi64x(0, 2, 4, 6)),
          _mm256_add_epi64(base, _mm256_setr_epi64x(8, 10, 12, 14))};
}
// The whole products of the low halves.
QUIRE_INLINE vw product(vw x, vw y) { return {_mm256_mul_epu32(x.a, y.a), _mm256_mul_epu32(x.b, y.b)}; }
QUIRE_INLINE vw high(vw x) { return {_mm256_srli_epi64(x.a, 32), _mm256_srli_epi64(x.b, 32)}; }
QUIRE_INLINE vw operator^(vw x, vw y) { return {_mm256_xor_si256(x.a, y.a), _mm256_xor_si256(x.b, y.b)}; }
// The low halves of lanes, those of `even` in even places.
QUIRE_INLINE vi interleave(vw even, vw odd) {
  return {_mm256_blend_epi32(even.a, _mm256_slli_epi64(odd.a, 32), 0xaa),
          _mm256_blend_epi32(even.b, _mm256_slli_epi64(odd.b, 32), 0xaa)};
}

}  // namespace quire
