// Packing of weights in super-blocks; their product is called where other packed weights' is.
#include "superblocks.h"

namespace quire {
namespace {

void put_factor(float x, f32* out) { *out = x; }
void put_factor(float x, f16* out) { *out = from_f32<f16>(x); }

// One super-block of 32 columns; `there` of them exist, and the others become zeros. SIDE k of a column lie side by
// side.
template <class S, int SIDE>
void pack_one(const QuireArgs_pack_super& args, int64_t column, int64_t there, int64_t r, uint8_t* out) {
  typedef typename S::F F;
  const int64_t supers = args.K / kSuperDepth, spans = args.K / 16;
  __builtin_memset(out, 0, S::bytes);
  for (int64_t c = 0; c < there; c++) {
    const int64_t row = column + c;
    put_factor(((const float*)args.factors)[row * supers + r], (F*)out + c);
    if (S::MINIMA)
      put_factor(((const float*)args.floors)[row * supers + r], (F*)out + kColumns + c);
    for (int64_t s = 0; s < kSuperDepth / S::SPAN; s++) {
      const int64_t from = row * spans + (r * kSuperDepth + s * S::SPAN) / 16;
      out[S::scales + s * kColumns + c] = ((const uint8_t*)args.steps)[from];
      if (S::MINIMA) out[S::minima + s * kColumns + c] = ((const uint8_t*)args.minima)[from];
    }
    const int8_t* codes = (const int8_t*)args.codes + row * args.stride + r * kSuperDepth;
    for (int64_t k = 0; k < kSuperDepth; k++) {
      const int64_t number = k / SIDE % 8, lane = c % 16 * SIDE + k % SIDE, line = 16 * SIDE;
      uint8_t* here = out + S::codes + (k / (8 * SIDE) * 2 + c / 16) * (S::LOW + S::HIGH) * line;
      const int code = (uint8_t)(codes[k] + S::BIAS);
      here[number * S::LOW / 8 * line + lane] |=
          (uint8_t)((code & ((1 << S::LOW) - 1)) << (number * S::LOW % 8));
      if (S::HIGH)
        here[line * S::LOW + number * S::HIGH / 8 * line + lane] |=
            (uint8_t)(code >> S::LOW << (number * S::HIGH % 8));
    }
  }
}

template <class S, int SIDE> void pack_all(const QuireArgs_pack_super& args, Team& team) {
  const int64_t blocks = (args.N + kColumns - 1) / kColumns, supers = args.K / kSuperDepth;
  int64_t from, to;
  team.part(blocks, &from, &to);
  for (int64_t block = from; block < to; block++) {
    const int64_t place = args.place + block * supers * S::bytes;
    const int64_t left = args.N - block * kColumns;
    ((int64_t*)args.out)[args.first + block] = place + args.kind;
    for (int64_t r = 0; r < supers; r++)
      pack_one<S, SIDE>(args, block * kColumns, left < kColumns ? left : kColumns, r,
                        (uint8_t*)args.out + place + r * S::bytes);
  }
}

}  // namespace

void pack_super(const QuireArgs_pack_super& args, Team& team) {
  if (args.format & kShortRows) {
    QUIRE_FOR_SHORT_SUPER(args.kind, S, pack_all<S, 4>(args, team))
  } else {
    QUIRE_FOR_SUPER(args.kind, S, pack_all<S, 2>(args, team))
  }
}

}  // namespace quire
