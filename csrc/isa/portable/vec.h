// Sixteen lanes of float32 or int32 in the compiler's own vectors; for any processor.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "team.h"

#define QUIRE_ISA "portable"

namespace quire {

typedef float f16x __attribute__((vector_size(64)));
typedef int32_t i16x __attribute__((vector_size(64)));
typedef uint32_t u16x __attribute__((vector_size(64)));

struct vf { f16x v; };
struct vi { i16x v; };
struct vm { i16x v; };  // all ones in the lanes that are set

QUIRE_INLINE void cpu_relax() { __asm__ volatile("" ::: "memory"); }

QUIRE_INLINE vi vi_set(int32_t x) { return {(i16x){} + x}; }
QUIRE_INLINE vi vi_iota() { return {(i16x){0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}}; }
QUIRE_INLINE vf vf_zero() { return {(f16x){}}; }
QUIRE_INLINE vf vf_set(float x) { return {(f16x){x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}}; }
QUIRE_INLINE vm first(int n) { return {vi_iota().v < vi_set(n).v}; }
QUIRE_INLINE uint32_t bits(vm m) {
  uint32_t b = 0;
  for (int i = 0; i < 16; i++) b |= (uint32_t)(m.v[i] & 1) << i;
  return b;
}
QUIRE_INLINE bool any(vm m) { return bits(m) != 0; }
QUIRE_INLINE vm from_bits(uint32_t b) {
  vm m;
  for (int i = 0; i < 16; i++) m.v[i] = -(int32_t)(b >> i & 1);
  return m;
}
QUIRE_INLINE vm both(vm x, vm y) { return {x.v & y.v}; }

QUIRE_INLINE vf load(const float* p) { vf x; memcpy(&x, p, 64); return x; }
QUIRE_INLINE void store(float* p, vf x) { memcpy(p, &x, 64); }
// Lanes from n on are zero, and their memory is not touched.
QUIRE_INLINE vf load(const float* p, int n) {
  if (n >= 16) return load(p);
  vf x = vf_zero();
  memcpy(&x, p, 4 * n);
  return x;
}
QUIRE_INLINE void store(float* p, vf x, int n) { memcpy(p, &x, n >= 16 ? 64 : 4 * n); }
QUIRE_INLINE vi load(const int32_t* p) { vi x; memcpy(&x, p, 64); return x; }
QUIRE_INLINE vi load(const int32_t* p, int n) {
  if (n >= 16) return load(p);
  vi x = vi_set(0);
  memcpy(&x, p, 4 * n);
  return x;
}
QUIRE_INLINE void store(int32_t* p, vi x) { memcpy(p, &x, 64); }
QUIRE_INLINE void store(int32_t* p, vi x, int n) { memcpy(p, &x, n >= 16 ? 64 : 4 * n); }
// Sixteen 16-bit numbers, widened with zeros; and the low halves of lanes.
QUIRE_INLINE vi load16(const uint16_t* p, int n) {
  vi x = vi_set(0);
  for (int i = 0; i < (n < 16 ? n : 16); i++) x.v[i] = p[i];
  return x;
}
QUIRE_INLINE vi load16(const uint16_t* p) { return load16(p, 16); }
QUIRE_INLINE void store16(uint16_t* p, vi x, int n) {
  for (int i = 0; i < (n < 16 ? n : 16); i++) p[i] = (uint16_t)x.v[i];
}
QUIRE_INLINE void store16(uint16_t* p, vi x) { store16(p, x, 16); }
// Sixteen signed bytes, widened; and the low bytes of lanes.
QUIRE_INLINE vi load8(const int8_t* p, int n) {
  vi x = vi_set(0);
  for (int i = 0; i < (n < 16 ? n : 16); i++) x.v[i] = p[i];
  return x;
}
QUIRE_INLINE vi load8(const int8_t* p) { return load8(p, 16); }
QUIRE_INLINE void store8(int8_t* p, vi x, int n) {
  for (int i = 0; i < (n < 16 ? n : 16); i++) p[i] = (int8_t)x.v[i];
}
QUIRE_INLINE void store8(int8_t* p, vi x) { store8(p, x, 16); }

QUIRE_INLINE vf operator+(vf x, vf y) { return {x.v + y.v}; }
QUIRE_INLINE vf operator-(vf x, vf y) { return {x.v - y.v}; }
QUIRE_INLINE vf operator*(vf x, vf y) { return {x.v * y.v}; }
QUIRE_INLINE vf operator/(vf x, vf y) { return {x.v / y.v}; }
QUIRE_INLINE vf fma(vf x, vf y, vf z) { return {x.v * y.v + z.v}; }  // two roundings here
QUIRE_INLINE vf select(vm m, vf x, vf y) { return {(f16x)((m.v & (i16x)x.v) | (~m.v & (i16x)y.v))}; }
QUIRE_INLINE vm less(vf x, vf y) { return {x.v < y.v}; }
QUIRE_INLINE vm less_equal(vf x, vf y) { return {x.v <= y.v}; }
QUIRE_INLINE vm equal(vf x, vf y) { return {x.v == y.v}; }
QUIRE_INLINE vm is_nan(vf x) { return {x.v != x.v}; }
QUIRE_INLINE vf max(vf x, vf y) { return select({x.v > y.v}, x, y); }  // y where either is NaN
QUIRE_INLINE vf min(vf x, vf y) { return select({x.v < y.v}, x, y); }
QUIRE_INLINE vf sqrt(vf x) {
  for (int i = 0; i < 16; i++) x.v[i] = sqrtf(x.v[i]);
  return x;
}
QUIRE_INLINE vf round(vf x) {
  for (int i = 0; i < 16; i++) x.v[i] = rintf(x.v[i]);
  return x;
}

QUIRE_INLINE vi operator+(vi x, vi y) { return {x.v + y.v}; }
QUIRE_INLINE vi operator-(vi x, vi y) { return {x.v - y.v}; }
QUIRE_INLINE vi operator*(vi x, vi y) { return {(i16x)((u16x)x.v * (u16x)y.v)}; }
QUIRE_INLINE vi operator&(vi x, vi y) { return {x.v & y.v}; }
QUIRE_INLINE vi operator|(vi x, vi y) { return {x.v | y.v}; }
QUIRE_INLINE vi operator^(vi x, vi y) { return {x.v ^ y.v}; }
template <int N> QUIRE_INLINE vi shift_left(vi x) { return {(i16x)((u16x)x.v << N)}; }
template <int N> QUIRE_INLINE vi shift_right(vi x) { return {(i16x)((u16x)x.v >> N)}; }
template <int N> QUIRE_INLINE vi shift_right_signed(vi x) { return {x.v >> N}; }
QUIRE_INLINE vm less(vi x, vi y) { return {x.v < y.v}; }
QUIRE_INLINE vm equal(vi x, vi y) { return {x.v == y.v}; }
QUIRE_INLINE vi select(vm m, vi x, vi y) { return {(m.v & x.v) | (~m.v & y.v)}; }

QUIRE_INLINE vi to_int(vf x) {  // to nearest, ties to even
  vi r;
  for (int i = 0; i < 16; i++) r.v[i] = (int32_t)rintf(x.v[i]);
  return r;
}
QUIRE_INLINE vf to_float(vi x) { return {__builtin_convertvector(x.v, f16x)}; }
QUIRE_INLINE vi as_int(vf x) { return {(i16x)x.v}; }
QUIRE_INLINE vf as_float(vi x) { return {(f16x)x.v}; }

// float16 in the low halves of lanes: exponent and mantissa moved, subnormals by a multiplication.
QUIRE_INLINE vf from_half(vi h) {
  vi magnitude = shift_left<13>(h & vi_set(0x7fff));
  vf value = as_float(magnitude) * as_float(vi_set(0x77800000));  // times 2^112
  vi special = as_int(value) | vi_set(0x7f800000);
  value = select(less(vi_set(0x0f7fffff), magnitude), as_float(special), value);
  return as_float(as_int(value) | shift_left<16>(h & vi_set(0x8000)));
}
QUIRE_INLINE vi to_half(vf x) {
  vi sign = shift_right<16>(as_int(x)) & vi_set(0x8000);
  vi magnitude = as_int(x) & vi_set(0x7fffffff);
  // subnormal results: adding 0.5 leaves the rounded mantissa in the low bits
  vi small = as_int(as_float(magnitude) + vf_set(0.5f)) - vi_set(0x3f000000);
  vi odd = shift_right<13>(magnitude) & vi_set(1);
  vi normal = shift_right<13>(magnitude + vi_set((int32_t)0xc8000fff) + odd);
  vi half = select(less(magnitude, vi_set(0x38800000)), small, normal);
  half = select(less(vi_set(0x477fefff), magnitude), vi_set(0x7c00), half);
  half = select(less(vi_set(0x7f800000), magnitude), vi_set(0x7e00), half);
  return half | sign;
}

}  // namespace quire
