// Stored float8 e4m3 as bfloat16 by float32 arithmetic.
#pragma once
#include "codes.h"

namespace quire {

// 32 numbers of float8 e4m3 as pairs of bfloat16, exactly; 0x7f and 0xff become 480 with the sign.
QUIRE_INLINE vi pairs_from_fp8(const uint8_t* p) {
  vi raw = pairs_unsigned(p);
  vi low = shift_right<16>(from_fp8(raw)), high = from_fp8(shift_right<16>(raw));
  return low | high | (shift_left<8>(raw) & vi_set((int32_t)0x80008000));
}

}  // namespace quire
