// Products with packed weights of 4 and 8 bits: out [rows, N] = x [rows, K] * weight.T + delta + bias.
#include "float8.h"
#include "int_tiles.h"

namespace quire {

void linear_quantized(const QuireArgs_linear_quantized& args, Team& team) {
  const void* weight = args.weight;
  if (args.format == kSuper) {
    QUIRE_FOR_DTYPE(args.dtype, T, multiply<T>(args, SuperProduct<T>(weight, args.N, args.K), team))
    return;
  }
  if (args.format == kSuper + kShortRows) {
    QUIRE_FOR_DTYPE(args.dtype, T, multiply<T>(args, ShortSuperProduct<T>(weight, args.N, args.K), team))
    return;
  }
  if (args.format & kShortRows) {
    QUIRE_FOR_DTYPE(args.dtype, T,
                    multiply<T>(args, BestShort<T>(weight, args.N, args.K, args.group, args.format, args.order),
                                team))
    return;
  }
  if (has_byte_rows(args.format)) {
    QUIRE_FOR_DTYPE(args.dtype, T,
                    multiply<T>(args, BestByte<T>(weight, args.N, args.K, args.format), team))
    return;
  }
  if (args.format != kFp8) {
    QUIRE_FOR_DTYPE(args.dtype, T,
                    multiply<T>(args, BestInt<T>(weight, args.N, args.K, args.group, args.format,
                                                    args.order), team))
    return;
  }
  const int64_t N = args.N, K = args.K, group = args.group;
  switch (args.dtype) {
    case QUIRE_FLOAT32:
      return multiply<f32>(args, FloatProduct<f32, f32>(weight, N, K, group, kFp8), team);
    case QUIRE_BFLOAT16:
      return multiply<bf16>(args, FloatProduct<bf16, bf16>(weight, N, K, group, kFp8), team);
    case QUIRE_FLOAT16:
      return multiply<f16>(args, FloatProduct<f16, f32>(weight, N, K, group, kFp8), team);
  }
}

// codes [N, K] of one byte, scales [N, K / group] and zeros of the same shape, to the layout above.
// Columns and numbers that are not there become zeros.
void pack_quantized(const QuireArgs_pack_quantized& args, Team& team) {
  const Layout l(args.N, args.K, args.group, args.format);
  const uint8_t nothing = l.halves == 1 ? 8 : 0;
  const bool is_bytes = has_byte_rows(args.format);
  const bool is_short = args.format & kShortRows;
  const int64_t side = is_bytes || is_short ? 4 : 2;  // k that stand side by side
  const uint8_t moved = is_short && l.halves == 2 ? 128 : 0;  // codes from 0 up, see short_rows.h
  int64_t from, to;
  team.part(l.blocks, &from, &to);
  for (int64_t block = from; block < to; block++) {
    uint8_t* out = (uint8_t*)args.out + block * l.block_bytes();
    for (int64_t r = 0; r < l.records(); r++, out += l.record_bytes()) {
      __builtin_memset(out, 0, l.record_bytes());
      if (is_bytes) {
        *(float*)(out + kStepAt) = args.step;
        *(int32_t*)(out + kShiftAt) = args.shift;
      }
      for (int64_t j = 0; j < kColumns; j++) {
        int64_t column = block * kColumns + j;
        bool is_there = column < args.N;
        int64_t at = column * l.records() + r;
        const float scale = is_there ? ((const float*)args.scales)[at] : 0;
        if (l.scales == 64) store((f16*)out + j, vf_set(scale), 1);
        else ((float*)out)[j] = scale;
        if (has_zeros(args.format)) out[l.scales + j] = is_there ? ((const uint8_t*)args.zeros)[at] : 0;
        const uint8_t* codes = (const uint8_t*)args.codes + column * args.stride;
        for (int64_t i = 0; i < l.group; i++) {
          int64_t k = r * l.group + i;
          uint8_t code = is_there && k < args.K ? codes[k] : nothing;
          if (is_bytes) ((int32_t*)(out + kSumsAt))[j] += (int8_t)code;
          if (l.halves == 2)
            out[l.head + (i / side * kColumns + j) * side + i % side] = code ^ moved;
          else
            out[l.head + (i / (2 * side) * kColumns + j) * side + i % side] |= (uint8_t)(code << (i / side % 2 * 4));
        }
      }
    }
  }
}

}  // namespace quire
