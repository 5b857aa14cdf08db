// Stored number types and their conversion to float32 lanes; a rounding is to nearest, ties to even.
#pragma once
#include "quire_ops.h"
#include "vec.h"

namespace quire {

typedef float f32;
struct bf16 { uint16_t bits; };
struct f16 { uint16_t bits; };

QUIRE_INLINE vf from_bf16(vi a) { return as_float(shift_left<16>(a)); }
// bfloat16 in the low halves of lanes.
QUIRE_INLINE vi to_bf16(vf a) {
  vi raw = as_int(a);
  vi odd = shift_right<16>(raw) & vi_set(1);
  vi rounded = shift_right<16>(raw + vi_set(0x7fff) + odd);
  vi quiet = shift_right<16>(raw) | vi_set(0x40);
  return select(is_nan(a), quiet, rounded);
}

QUIRE_INLINE vf load(const bf16* p) { return from_bf16(load16(&p->bits)); }
QUIRE_INLINE vf load(const bf16* p, int n) { return from_bf16(load16(&p->bits, n)); }
QUIRE_INLINE void store(bf16* p, vf a) { store16(&p->bits, to_bf16(a)); }
QUIRE_INLINE void store(bf16* p, vf a, int n) { store16(&p->bits, to_bf16(a), n); }
QUIRE_INLINE vf load(const f16* p) { return from_half(load16(&p->bits)); }
QUIRE_INLINE vf load(const f16* p, int n) { return from_half(load16(&p->bits, n)); }
QUIRE_INLINE void store(f16* p, vf a) { store16(&p->bits, to_half(a)); }
QUIRE_INLINE void store(f16* p, vf a, int n) { store16(&p->bits, to_half(a), n); }

// One number.
template <class T> QUIRE_INLINE float to_f32(T x) {
  float lanes[16];
  store(lanes, load(&x, 1), 1);
  return lanes[0];
}
template <class T> QUIRE_INLINE T from_f32(float x) {
  T number;
  store(&number, vf_set(x), 1);
  return number;
}

// Sums and maxima of the lanes, always in the same order.
QUIRE_INLINE float sum(vf a) {
  float x[16];
  store(x, a);
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; i++) x[i] += x[i + width];
  return x[0];
}
QUIRE_INLINE float largest(vf a) {
  float x[16];
  store(x, a);
  for (int width = 8; width; width /= 2)
    for (int i = 0; i < width; i++) x[i] = x[i] > x[i + width] ? x[i] : x[i + width];
  return x[0];
}

// Calls `body` with a value of the type that `dtype` names.
#define QUIRE_FOR_DTYPE(dtype, T, ...)                                       \
  switch (dtype) {                                                           \
    case QUIRE_FLOAT32: { typedef quire::f32 T; __VA_ARGS__; break; }        \
    case QUIRE_BFLOAT16: { typedef quire::bf16 T; __VA_ARGS__; break; }      \
    case QUIRE_FLOAT16: { typedef quire::f16 T; __VA_ARGS__; break; }        \
  }

}  // namespace quire
