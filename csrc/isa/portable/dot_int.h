// Pairs of 16-bit integers in 32-bit lanes, and how stored bytes become them.
#pragma once
#include "dot.h"

namespace quire {

typedef int16_t i16_32x __attribute__((vector_size(64)));
typedef uint16_t u16_32x __attribute__((vector_size(64)));
typedef int8_t i8_32x __attribute__((vector_size(32)));
typedef uint8_t u8_32x __attribute__((vector_size(32)));

// c + low(a) * low(b) + high(a) * high(b), exactly. Low is what comes first in memory.
QUIRE_INLINE vi dot_pairs(vi a, vi b, vi c) {
  i16_32x x = (i16_32x)a.v, y = (i16_32x)b.v;
  for (int i = 0; i < 16; i++)
    c.v[i] += (int32_t)x[2 * i] * y[2 * i] + (int32_t)x[2 * i + 1] * y[2 * i + 1];
  return c;
}

// 32 signed bytes as pairs; 32 bytes as pairs of numbers from 0 to 255.
QUIRE_INLINE vi pairs_signed(const uint8_t* p) {
  i8_32x x;
  memcpy(&x, p, 32);
  return {(i16x)__builtin_convertvector(x, i16_32x)};
}
QUIRE_INLINE vi pairs_unsigned(const uint8_t* p) {
  u8_32x x;
  memcpy(&x, p, 32);
  return {(i16x)__builtin_convertvector(x, u16_32x)};
}
// Of pairs of numbers up to 255: what lies above the low four bits.
QUIRE_INLINE vi high_nibbles(vi pairs) { return {(i16x)((u16_32x)pairs.v >> 4)}; }
// Pair by pair, the low 16 bits of each result.
QUIRE_INLINE vi mul_pairs(vi a, vi b) { return {(i16x)((u16_32x)a.v * (u16_32x)b.v)}; }
QUIRE_INLINE vi sub_pairs(vi a, vi b) { return {(i16x)((u16_32x)a.v - (u16_32x)b.v)}; }

// Whether numbers are multiplied crosswise, see quantized.h: here the other way is as quick.
const bool kCrosses = false;
QUIRE_INLINE bool sums_are_cheap() { return false; }
QUIRE_INLINE vi add_pairs(vi a, vi b) { return {(i16x)((u16_32x)a.v + (u16_32x)b.v)}; }

// 32 numbers, of which each lane of a and then of b holds one, as pairs; and each odd lane in the place of the even one
// before it, zeros in its own.
QUIRE_INLINE vi pairs_of(vi a, vi b) {
  i16_32x numbers;
  for (int i = 0; i < 16; i++) {
    numbers[i] = (int16_t)a.v[i];
    numbers[16 + i] = (int16_t)b.v[i];
  }
  return {(i16x)numbers};
}
QUIRE_INLINE vi odd_lanes(vi a) {
  i16x odd = {};
  for (int i = 0; i < 16; i += 2) odd[i] = a.v[i + 1];
  return {odd};
}

// Four signed bytes in each lane, as pairs of the even and of the odd ones.
struct Quads { vi even, odd; };
QUIRE_INLINE Quads quads_signed(const uint8_t* p) {
  i16_32x raw;
  memcpy(&raw, p, 64);
  return {{(i16x)((raw << 8) >> 8)}, {(i16x)(raw >> 8)}};
}
// c + the products with four bytes from 0 to 255, exactly.
QUIRE_INLINE vi dot_quads(uint32_t bytes, Quads w, vi c) {
  c = dot_pairs(vi_set((int32_t)(bytes & 0x00ff00ff)), w.even, c);
  return dot_pairs(vi_set((int32_t)(bytes >> 8 & 0x00ff00ff)), w.odd, c);
}

// c + the products of four bytes from 0 to 63 of each lane with four signed ones, exactly.
QUIRE_INLINE vi dot_bytes(vi codes, vi signed_bytes, vi c) {
  const u16_32x a = (u16_32x)codes.v;
  const i16_32x b = (i16_32x)signed_bytes.v;
  c = dot_pairs({(i16x)(a & 0xff)}, {(i16x)((b << 8) >> 8)}, c);
  return dot_pairs({(i16x)(a >> 8)}, {(i16x)(b >> 8)}, c);
}

// The same of bytes up to 255.
QUIRE_INLINE vi dot_whole_bytes(vi codes, vi signed_bytes, vi c) { return dot_bytes(codes, signed_bytes, c); }

}  // namespace quire

#include "plain_fp8.h"
#include "plain_sums.h"
