// Sums and maxima of lanes of integers where no instruction makes them.
#pragma once

namespace quire {

// Of each of four registers the sum of lanes 0 to 7 and that of lanes 8 to 15, register by register.
QUIRE_INLINE void add_halves(const vi v[4], int32_t* out) {
  for (int i = 0; i < 8; i++) {
    int32_t lanes[16];
    store(lanes, v[i / 2]);
    uint32_t sum = 0;
    for (int j = 0; j < 8; j++) sum += lanes[i % 2 * 8 + j];
    out[i] = (int32_t)sum;
  }
}
QUIRE_INLINE vi max(vi a, vi b) { return select(less(a, b), b, a); }
QUIRE_INLINE int32_t largest(vi a) {
  int32_t lanes[16];
  store(lanes, a);
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; i++) lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
  return lanes[0];
}

}  // namespace quire
