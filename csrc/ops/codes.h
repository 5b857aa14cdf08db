// Floats as codes of a byte or less: what stands for one code, and float8 e4m3 and e5m2. Each step is one rounding.
#pragma once
#include "numbers.h"

namespace quire {

const float kSmallest = 0x1p-100f;  // a group whose numbers are all below is zero

enum CodeKind { kInt8Code, kE4m3Code, kE5m2Code };

struct Scale {
  float value, inverse;
  // What stands for one code where `limit` stands for `code`; zero and not a number where it must.
  Scale(float limit, float code) {
    value = limit / code;
    float size = limit < 0 ? -limit : limit;
    bool good = size >= kSmallest && size < __builtin_inff();
    inverse = good ? 1.0f / value : 0;
    if (size < kSmallest) value = 0;
    if (!(size < __builtin_inff())) value = __builtin_nanf("");
  }
};

// The float8 e4m3 code of each lane of at most 448 in magnitude, in its low byte.
QUIRE_INLINE vi to_fp8(vf x) {
  vi sign = shift_right<24>(as_int(x)) & vi_set(0x80);
  vi size = as_int(x) & vi_set(0x7fffffff);
  vi small = as_int(as_float(size) + vf_set(0x1p14f)) - as_int(vf_set(0x1p14f));  // units of 2^-9
  vi odd = shift_right<20>(size) & vi_set(1);
  vi normal = shift_right<20>(size + vi_set(0x7ffff) + odd) - vi_set(120 << 3);
  return sign | select(less(size, as_int(vf_set(0x1p-6f))), small, normal);
}

// One number e4m3 in bits 0 to 6 of each lane as float32 without its sign: its exponent and mantissa
// stand where those of a float32 do, 2^120 below its value.
QUIRE_INLINE vi from_fp8(vi code) {
  return as_int(as_float(shift_left<20>(code & vi_set(0x7f))) * vf_set(0x1p120f));
}

// The float8 e5m2 code of each lane of at most 57,344 in magnitude, in its low byte.
QUIRE_INLINE vi to_e5m2(vf x) {
  vi sign = shift_right<24>(as_int(x)) & vi_set(0x80);
  vi size = as_int(x) & vi_set(0x7fffffff);
  vi small = as_int(as_float(size) + vf_set(0x1p7f)) - as_int(vf_set(0x1p7f));  // units of 2^-16
  vi odd = shift_right<21>(size) & vi_set(1);
  vi normal = shift_right<21>(size + vi_set(0xfffff) + odd) - vi_set(112 << 2);
  return sign | select(less(size, as_int(vf_set(0x1p-14f))), small, normal);
}

// Likewise of one number e5m2, 2^112 below its value.
QUIRE_INLINE vi from_e5m2(vi code) {
  return as_int(as_float(shift_left<21>(code & vi_set(0x7f))) * vf_set(0x1p112f));
}

QUIRE_INLINE vf clamp(vf x, float least, float most) { return max(min(x, vf_set(most)), vf_set(least)); }
QUIRE_INLINE vf nearest(vf x, float inverse, bool good) { return good ? round(x * vf_set(inverse)) : vf_zero(); }

}  // namespace quire
