// Keys and values kept in one byte a number: codes to numbers for the kernels, and numbers to codes.
//
// A number is its code's (a whole number from -127 to 127, or float8 e4m3 or e5m2) times the scale of its token
// and head, or the code's alone where there are no scales.
#pragma once
#include "attend.h"
#include "codes.h"

namespace quire {

enum CacheFormat {
  kPlain = QUIRE_CACHE_PLAIN,
  kFp8 = QUIRE_CACHE_FP8,
  kFp8Scaled = QUIRE_CACHE_FP8_PER_TOKEN_HEAD,
  kInt8Scaled = QUIRE_CACHE_INT8_PER_TOKEN_HEAD,
  kFp8E5m2 = QUIRE_CACHE_FP8_E5M2,
};

// What sixteen codes stand for, bytes widened with their sign. 0x7f and 0xff of e4m3 are not numbers, nor
// are 0x7d and 0xfd of e5m2 and what is above.
template <CodeKind kind> QUIRE_INLINE vf numbers_of(vi codes) {
  if (kind == kInt8Code) return to_float(codes);
  vi size = codes & vi_set(0x7f), most = vi_set(kind == kE4m3Code ? 0x7e : 0x7c);
  vi bits = kind == kE4m3Code ? from_fp8(size) : from_e5m2(size);
  bits = select(less(most, size), vi_set(0x7fc00000), bits);
  return as_float(bits | (codes & vi_set((int32_t)0x80000000)));
}

// Numbers of at most eight significant bits: bfloat16 has them all.
template <class T> QUIRE_INLINE void store_exact(T* p, vf a, int n) { store(p, a, n); }
QUIRE_INLINE void store_exact(bf16* p, vf a, int n) { store16(&p->bits, shift_right<16>(as_int(a)), n); }

#ifndef QUIRE_HAS_WIDEN
template <CodeKind kind> QUIRE_INLINE void widen64(const uint8_t* from, bf16* to) {
  for (int i = 0; i < 64; i += 16)
    store16(&to[i].bits, shift_right<16>(as_int(numbers_of<kind>(load8((const int8_t*)from + i)))));
}
#endif
template <CodeKind kind, class T> QUIRE_INLINE void widen64(const uint8_t* from, T* to) {
  for (int i = 0; i < 64; i += 16) store(to + i, numbers_of<kind>(load8((const int8_t*)from + i)));
}

template <CodeKind kind, class T>
__attribute__((noinline)) void widen_codes(const uint8_t* from, int64_t n, T* to, const char* ahead) {
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    fetch(ahead + i);
    widen64<kind>(from + i, to + i);
  }
  for (; i < n; i += 16) {
    int count = n - i < 16 ? (int)(n - i) : 16;
    store_exact(to + i, numbers_of<kind>(load8((const int8_t*)from + i, count)), count);
  }
}

// `n` codes as numbers, exactly and without their scale; brings as many bytes from `ahead` on nearer.
template <class T> void widen(int32_t format, const uint8_t* from, int64_t n, T* to, const char* ahead) {
  if (format == kInt8Scaled) widen_codes<kInt8Code>(from, n, to, ahead);
  else if (format == kFp8E5m2) widen_codes<kE5m2Code>(from, n, to, ahead);
  else widen_codes<kE4m3Code>(from, n, to, ahead);
}

// The codes of x [n], in order; returns their scale. Where the format has none, they are those of x
// times `inverse`.
template <class T>
float narrow(int32_t format, const T* x, int64_t n, uint8_t* codes, float inverse) {
  auto part = [&](int64_t i) { return n - i < 16 ? (int)(n - i) : 16; };
  const bool is_fp8 = format != kInt8Scaled, is_e5m2 = format == kFp8E5m2;
  Scale scale(0, 1);
  if (format != kFp8 && !is_e5m2) {
    vi most = vi_set(0);
    for (int64_t i = 0; i < n; i += 16) {
      vi size = as_int(load(x + i, part(i))) & vi_set(0x7fffffff);
      most = select(less(most, size), size, most);
    }
    int32_t sizes[16];
    store(sizes, most);
    for (int i = 1; i < 16; i++) sizes[0] = sizes[0] < sizes[i] ? sizes[i] : sizes[0];
    float limit;
    __builtin_memcpy(&limit, sizes, 4);
    scale = Scale(limit, is_fp8 ? 448 : 127);
  } else {
    scale.inverse = inverse;
  }
  for (int64_t i = 0; i < n; i += 16) {
    vf number = load(x + i, part(i));
    vf value = scale.inverse != 0 ? number * vf_set(scale.inverse) : vf_zero();
    vi code;
    if (is_e5m2) code = select(is_nan(value), vi_set(0x7f), to_e5m2(clamp(value, -57344, 57344)));
    else if (is_fp8) code = select(is_nan(value), vi_set(0x7f), to_fp8(clamp(value, -448, 448)));
    else code = to_int(value);
    store8((int8_t*)codes + i, code, part(i));
  }
  return scale.value;
}

}  // namespace quire
