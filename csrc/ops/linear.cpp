// Products with packed weights of floats: out [rows, N] = x [rows, K] * weight.T + delta + bias.
#include "product.h"

namespace quire {
namespace {

// The blocks of a weight. What lies side by side in a row, one number or the two of a step, is moved
// as one `Unit`, in squares that are read by rows and written by columns.
template <class T, class Unit>
void pack(const QuireArgs_pack_linear& args, Team& team) {
  const int64_t per = sizeof(Unit) / sizeof(T), depth = (args.K + 31) / 32 * 32 / per;
  const int64_t whole = args.K / per, kSide = 16;
  int64_t from, to;
  team.part((args.N + kColumns - 1) / kColumns, &from, &to);
  for (int64_t block = from; block < to; block++) {
    Unit* out = (Unit*)args.out + block * depth * kColumns;
    const int64_t known = args.N - block * kColumns < kColumns ? args.N - block * kColumns : kColumns;
    const T* in = (const T*)args.weight + block * kColumns * args.stride;
    for (int64_t k = 0; k < depth; k += kSide) {
      Unit square[kColumns][kSide];
      for (int64_t j = 0; j < kColumns; j++) {
        int64_t n = j >= known || whole < k ? 0 : whole - k < kSide ? whole - k : kSide;
        __builtin_memcpy(square[j], in + j * args.stride + k * per, n * sizeof(Unit));
        __builtin_memset(square[j] + n, 0, (kSide - n) * sizeof(Unit));
        if (j < known && args.K % per && whole >= k && whole < k + kSide)  // half a step at the end
          __builtin_memcpy(square[j] + n, in + j * args.stride + args.K - 1, sizeof(T));
      }
      for (int64_t side = 0; side < kSide; side++)
        for (int64_t j = 0; j < kColumns; j++) out[(k + side) * kColumns + j] = square[j][side];
    }
  }
}

}  // namespace

void linear(const QuireArgs_linear& args, Team& team) {
  QUIRE_FOR_DTYPE(args.dtype, T,
                  multiply<T>(args, PlainProduct<T>(args.weight, args.N, args.K), team))
}

void pack_linear(const QuireArgs_pack_linear& args, Team& team) {
  switch (args.dtype) {
    case QUIRE_FLOAT32: return pack<f32, uint32_t>(args, team);
    case QUIRE_BFLOAT16: return pack<bf16, uint32_t>(args, team);
    case QUIRE_FLOAT16: return pack<f16, uint16_t>(args, team);
  }
}

}  // namespace quire
