// Eight lanes of 64 bits in one AVX-512 register, for words of 32 bits and their products.
#pragma once
#include "vec.h"

namespace quire {

struct vw { __m512i v; };

QUIRE_INLINE vw vw_set(uint64_t x) { return {_mm512_set1_epi64((int64_t)x)}; }
QUIRE_INLINE vw vw_even(uint32_t from) {  // from, from + 2, ...
  return {_mm512_add_epi64(_mm512_set1_epi64(from), _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14))};
}
// The whole products of the low halves.
QUIRE_INLINE vw product(vw x, vw y) { return {_mm512_mul_epu32(x.v, y.v)}; }
QUIRE_INLINE vw high(vw x) { return {_mm512_srli_epi64(x.v, 32)}; }
QUIRE_INLINE vw operator^(vw x, vw y) { return {_mm512_xor_si512(x.v, y.v)}; }
// The low halves of lanes, those of `even` in even places.
QUIRE_INLINE vi interleave(vw even, vw odd) {
  return {_mm512_mask_blend_epi32(0xaaaa, even.v, _mm512_slli_epi64(odd.v, 32))};
}

}  // namespace quire
