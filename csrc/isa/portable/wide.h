// Eight lanes of 64 bits in the compiler's own vectors, for words of 32 bits and their products.
#pragma once
#include "vec.h"

namespace quire {

typedef uint64_t u8x __attribute__((vector_size(64)));

struct vw { u8x v; };

QUIRE_INLINE vw vw_set(uint64_t x) { return {(u8x){} + x}; }
QUIRE_INLINE vw vw_even(uint32_t from) {  // from, from + 2, ...
  return {(u8x){0, 2, 4, 6, 8, 10, 12, 14} + (uint64_t)from};
}
// The whole products of the low halves.
QUIRE_INLINE vw product(vw x, vw y) { return {(x.v & 0xffffffffu) * (y.v & 0xffffffffu)}; }
QUIRE_INLINE vw high(vw x) { return {x.v >> 32}; }
QUIRE_INLINE vw operator^(vw x, vw y) { return {x.v ^ y.v}; }
// The low halves of lanes, those of `even` in even places.
QUIRE_INLINE vi interleave(vw even, vw odd) {
  vi r;
  for (int i = 0; i < 8; i++) {
    r.v[2 * i] = (int32_t)even.v[i];
    r.v[2 * i + 1] = (int32_t)odd.v[i];
  }
  return r;
}

}  // namespace quire
