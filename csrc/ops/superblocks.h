// Products with weights in super-blocks: 256 numbers of a column that share two float16 factors.
//
// Within a super-block each 16 or 32 neighbours have a scale of whole numbers, and some kinds a minimum:
// a number is factor * scale * code - floor * minimum. Codes times scales fit in 16 bits. Their products
// with rows of integers are exact within a unit, of as many k as 32 bits allow; units are added up in
// float32 within a part of a row, then come the row's step and the column's factor; then minima are taken
// away, span by span: the sum of the row's numbers times what they stand for, times floor * minimum.
//
// A packed weight begins with a number for each block of 32 columns: where it is, plus its kind. So blocks
// of several kinds may lie in one weight. A block is a row of super-blocks: 32 factors and 32 floors as
// float16, or factors as float32; scales of 32 columns, one byte each, for each span of k; minima likewise; then codes: for every
// 16 k and 16 columns their low bits, then their high bits, two k of a column side by side.
#pragma once
#include "quantized.h"

namespace quire {

const int kSuper = 8;             // the number of these formats among those of packed weights
const int64_t kSuperDepth = 256;  // k of a super-block

// LOW and HIGH bits of a code, BIAS that is taken from it, SPAN of k with one scale, UNIT of k with one
// exact sum, whether there are minima, and the type of factors and floors.
template <int LOW_, int HIGH_, int BIAS_, int SPAN_, int UNIT_, bool MINIMA_, class F_ = f16>
struct SuperKind {
  typedef F_ F;
  static const int LOW = LOW_, HIGH = HIGH_, BIAS = BIAS_, SPAN = SPAN_, UNIT = UNIT_;
  static const bool MINIMA = MINIMA_;
  // Codes times scales, which are bytes, are at most 32 * 128: they may be multiplied crosswise (quantized.h).
  static const bool CROSS = kCrosses && LOW + HIGH <= 6 && (MINIMA || BIAS == 1 << (LOW + HIGH - 1));
  static const int64_t scales = sizeof(F) * kColumns * (MINIMA ? 2 : 1);  // where they begin, in bytes
  static const int64_t spans = kSuperDepth / SPAN * kColumns;
  static const int64_t minima = scales + spans;
  static const int64_t codes = scales + spans * (MINIMA ? 2 : 1);
  static const int64_t bytes = codes + kSuperDepth * kColumns * (LOW + HIGH) / 8;
};
typedef SuperKind<2, 0, 0, 16, 128, true> Q2K;
typedef SuperKind<2, 1, 4, 16, 128, false> Q3K;
typedef SuperKind<4, 0, 0, 32, 64, true> Q4K;
typedef SuperKind<4, 1, 0, 32, 32, true> Q5K;
typedef SuperKind<4, 2, 32, 16, 16, false> Q6K;
typedef SuperKind<8, 0, 0, 16, 16, false, f32> Int8K;

// Calls `body` with the type of the kind that has this number, or of one with at most six bits.
#define QUIRE_SUPER_CASES(S, ...)                         \
    case 0: { typedef Q2K S; __VA_ARGS__; break; }        \
    case 1: { typedef Q3K S; __VA_ARGS__; break; }        \
    case 2: { typedef Q4K S; __VA_ARGS__; break; }        \
    case 3: { typedef Q5K S; __VA_ARGS__; break; }        \
    case 4: { typedef Q6K S; __VA_ARGS__; break; }
#define QUIRE_FOR_SUPER(kind, S, ...)                     \
  switch (kind) {                                         \
    QUIRE_SUPER_CASES(S, __VA_ARGS__)                     \
    case 5: { typedef Int8K S; __VA_ARGS__; break; }      \
  }
#define QUIRE_FOR_SHORT_SUPER(kind, S, ...) \
  switch (kind) { QUIRE_SUPER_CASES(S, __VA_ARGS__) }

// Codes of 16 columns, BIAS not taken away, whose eight registers are taken in turn: SIDE k in each lane.
template <class S, int SIDE = 2> struct Codes {
  static const uint32_t kEach = SIDE == 2 ? 0x10001 : 0x1010101;  // one in each number of a lane
  const uint8_t* in;
  vi low, high;

  QUIRE_INLINE vi raw(const uint8_t* p) { return SIDE == 2 ? pairs_unsigned(p) : load((const int32_t*)p); }
  // Register `i`, a constant where this is called.
  QUIRE_INLINE vi take(Codes& from, int i) {
    if (S::LOW == 8) return pairs_signed(from.in + 32 * i);
    const int place = i * S::LOW % 8, above = S::HIGH ? i * S::HIGH % 8 : 0;
    if (place == 0) from.low = raw(from.in + 2 * SIDE * S::LOW * i);
    const vi code = shifted(from.low, place) & vi_set(((1 << S::LOW) - 1) * kEach);
    if (!S::HIGH) return code;
    if (above == 0) from.high = raw(from.in + 16 * SIDE * S::LOW + 2 * SIDE * S::HIGH * i);
    const vi mask = vi_set((((1 << S::HIGH) - 1) << S::LOW) * kEach);
    return code | (shifted(from.high, above - S::LOW) & mask);
  }

 private:
  QUIRE_INLINE vi shifted(vi a, int right) {
    switch (right) {
      case -4: return shift_left<4>(a);
      case -3: return shift_left<3>(a);
      case -2: return shift_left<2>(a);
      case -1: return shift_left<1>(a);
      case 1: return shift_right<1>(a);
      case 2: return shift_right<2>(a);
      case 3: return shift_right<3>(a);
      case 4: return shift_right<4>(a);
      case 5: return shift_right<5>(a);
      case 6: return shift_right<6>(a);
      default: return a;
    }
  }
};

template <class S> QUIRE_INLINE void fetch_ahead(const uint8_t* in) {
  for (int i = 0; i < (S::LOW + S::HIGH) * 32; i += 64) __builtin_prefetch(in + kFar + i, 0, 2);
}

// As much of what stands before the codes, of which each of two parts has half.
template <class S> QUIRE_INLINE void fetch_head(const uint8_t* block, int64_t part, int64_t far = kFar) {
  const int kBytes = S::codes / 2;
  for (int i = 0; i < kBytes; i += 64) __builtin_prefetch(block + far + part * kBytes + i, 0, 2);
}

const int64_t kMinima = kPart / 16 * kColumns;  // numbers that are taken away of a part

// floor * minimum of each span of a part, [spans][32].
template <class S> void read_minima(const uint8_t* block, int part, float* out) {
  if (!S::MINIMA) return;
  const uint8_t* in = block + S::minima + part * kPart / S::SPAN * kColumns;
  for (int j = 0; j < 2; j++) {
    const vf floor = load((const typename S::F*)block + kColumns + 16 * j);
    for (int s = 0; s < kPart / S::SPAN; s++)
      store(out + s * kColumns + 16 * j,
            floor * to_float(load8((const int8_t*)in + s * kColumns + 16 * j)));
  }
}

// Rows as integers; for each 16 k and each 32 k the sum of what they stand for; and what a row has with itself
// for each 16 k, 32 k, 64 k and 128 k.
struct SuperRows {
  IntRows ints;
  float *sums16, *sums32;
  int32_t* own[4];
};

struct SuperSizes {
  RowSizes ints;
  explicit SuperSizes(const Layout& l) : ints(l, 16) {}
  int64_t all() const { return ints.all() + 4 * ints.sums; }
  SuperRows at(int32_t* memory, int64_t all_rows, int64_t first) const {
    SuperRows rows = {ints.at(memory, all_rows, first), nullptr, nullptr, {}};
    int32_t* place = memory + all_rows * ints.all();
    for (int64_t level = 0, size = ints.sums; level < 4; level++, size /= 2) {
      rows.own[level] = place + first * size;
      place += all_rows * size;
    }
    rows.sums16 = (float*)place + first * ints.sums;
    rows.sums32 = (float*)place + all_rows * ints.sums + first * (ints.sums / 2);
    return rows;
  }
};

// What minima are multiplied by, span by span from k on: of R rows, sums of 16 or of 32 k.
template <int R, class S> QUIRE_INLINE const float* below_of(const float* sums16, const float* sums32, int64_t k) {
  return S::SPAN == 16 ? sums16 + k / 16 * R : sums32 + k / 32 * R;
}

// sums [R][32] less what the minima of a part take away, span by span, of rows whose sums are `below`.
template <int R, class S> QUIRE_INLINE void take_minima(const float* below, const float* minima, float* sums) {
  if (!S::MINIMA) return;
  for (int j = 0; j < 2; j++) {
    vf less[kPart / S::SPAN];
    for (int s = 0; s < kPart / S::SPAN; s++) less[s] = load(minima + s * kColumns + 16 * j);
    for (int i = 0; i < R; i++) {
      vf sum = load(sums + kColumns * i + 16 * j);
      for (int s = 0; s < kPart / S::SPAN; s++) sum = sum - vf_set(below[s * R + i]) * less[s];
      store(sums + kColumns * i + 16 * j, sum);
    }
  }
}

// sums [R][32] += totals of a part [R][2], in their units, of rows that have these steps.
template <int R, class S>
QUIRE_INLINE void add_part(const float* steps, const vf (*total)[2], const uint8_t* block, float* sums) {
  for (int j = 0; j < 2; j++) {
    const vf factor = load((const typename S::F*)block + 16 * j);
    for (int i = 0; i < R; i++) {
      float* place = sums + kColumns * i + 16 * j;
      store(place, load(place) + total[i][j] * vf_set(steps[i]) * factor);
    }
  }
}

// total [R][2] += sums of a unit; the first of a part is `fresh`.
template <int R> QUIRE_INLINE void add_unit(const vi (*c)[2], bool fresh, vf (*total)[2]) {
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++)
      total[i][j] = fresh ? to_float(c[i][j]) : total[i][j] + to_float(c[i][j]);
}

// Codes times scales of 16 k of 16 columns, in turn.
template <class S> struct Scaled {
  Codes<S> codes;
  vi scale, less;

  QUIRE_INLINE Scaled of(const uint8_t* in, const uint8_t* scales) {
    const vi number = load8((const int8_t*)scales);
    const vi scale = (number & vi_set(0xffff)) | shift_left<16>(number);
    return {{in, vi_set(0), vi_set(0)}, scale,
            S::BIAS ? mul_pairs(scale, vi_set(S::BIAS * 0x10001)) : scale};
  }
  QUIRE_INLINE vi take(Scaled& from, int i) {
    const vi product = mul_pairs(Codes<S>::take(from.codes, i), from.scale);
    return S::BIAS ? sub_pairs(product, from.less) : product;
  }
};

// What rows of a group have with themselves, unit by unit from k on.
template <int R, class S> QUIRE_INLINE const int32_t* own_of(const SuperRows& a, int64_t k) {
  const int kLevel = S::UNIT == 16 ? 0 : S::UNIT == 32 ? 1 : S::UNIT == 64 ? 2 : 3;
  return a.own[kLevel] + k / S::UNIT * R;
}

// A part of R rows times the same part of a block, whose numbers are put into `wide` for other rows: as
// pairs [64][32 columns] of 16 bits.
template <int R, class S, bool CROSS>
void first_tile(const SuperRows& a, const uint8_t* block, const float* minima, int64_t k, const WidePart& shared,
                float* sums) {
  WidePart wide = shared;
  const int kCrossed = CROSS ? crossed_rows(R) : 0;
  const int kBytes = (S::LOW + S::HIGH) * 32;  // of 16 k of 16 columns
  const int64_t part = k % kSuperDepth / kPart;
  const uint8_t* in = block + S::codes + part * kPart / 16 * 2 * kBytes;
  const uint8_t* scales = block + S::scales + part * kPart / S::SPAN * kColumns;
  const int32_t *pairs = a.ints.pairs + k / 2 * R, *own = own_of<R, S>(a, k);
  vf total[R][2];
  fetch_head<S>(block, part);
  take_minima<R, S>(below_of<R, S>(a.sums16, a.sums32, k), minima, sums);
  for (int u = 0; u < kPart; u += S::UNIT, own += R, WidePart::next(wide)) {
    vi c[R][2], crossed[2] = {vi_set(0), vi_set(0)};
    for (int i = 0; i < R; i++) c[i][0] = c[i][1] = vi_set(i < kCrossed ? -own[i] : 0);
    for (int n = u; n < u + S::UNIT; n += 16, in += 2 * kBytes) {
      const uint8_t* scale = scales + n / S::SPAN * kColumns;
      Scaled<S> from[2] = {Scaled<S>::of(in, scale), Scaled<S>::of(in + kBytes, scale + 16)};
      fetch_ahead<S>(in);
      fetch_ahead<S>(in + kBytes);
#pragma GCC unroll 4
      for (int p = 0; p < 8; p += 2, pairs += 2, wide.pairs += 4 * 16) {
        vi w[2][2];
        for (int half = 0; half < 2; half++)
          for (int j = 0; j < 2; j++) {
            w[half][j] = Scaled<S>::take(from[j], p + half);
            store(wide.pairs + 32 * half + 16 * j, w[half][j]);
          }
        for (int j = 0; j < 2 && CROSS; j++) crossed[j] = dot_pairs(w[0][j], w[1][j], crossed[j]);
        dot_fours<R, kCrossed>(pairs, w, c);
      }
    }
    for (int j = 0; j < 2 && CROSS; j++) {
      store(wide.less + 16 * j, vi_set(0) - crossed[j]);
      for (int i = 0; i < kCrossed; i++) c[i][j] = c[i][j] - crossed[j];
    }
    add_unit<R>(c, u == 0, total);
  }
  add_part<R, S>(a.ints.steps + k / kPart * R, total, block, sums);
}

// A part of R rows times the same part of a block, which was widened.
template <int R, class S, bool CROSS>
void wide_tile(const SuperRows& a, const uint8_t* block, const float* minima, int64_t k, const WidePart& shared,
               float* sums) {
  const int kCrossed = CROSS ? crossed_rows(R) : 0;
  WidePart wide = shared;
  const int32_t *pairs = a.ints.pairs + k / 2 * R, *own = own_of<R, S>(a, k);
  vf total[R][2];
  take_minima<R, S>(below_of<R, S>(a.sums16, a.sums32, k), minima, sums);
  for (int u = 0; u < kPart; u += S::UNIT, own += R, WidePart::next(wide)) {
    vi c[R][2];
    begin_wide<R, kCrossed>(own, wide.less, c);
    dot_wide<R, S::UNIT, kCrossed>(pairs, wide.pairs, c);
    add_unit<R>(c, u == 0, total);
    pairs += S::UNIT / 2;
    wide.pairs += S::UNIT * 16;
  }
  add_part<R, S>(a.ints.steps + k / kPart * R, total, block, sums);
}

// The same for few rows, straight from the block: codes are multiplied first, and their sums by scales.
template <int R, class S>
void narrow_tile(const SuperRows& a, const uint8_t* block, const float* minima, int64_t k, float* sums) {
  const int kBytes = (S::LOW + S::HIGH) * 32;
  const int64_t part = k % kSuperDepth / kPart;
  const uint8_t* in = block + S::codes + part * kPart / 16 * 2 * kBytes;
  const uint8_t* scales = block + S::scales + part * kPart / S::SPAN * kColumns;
  const int32_t* pairs = a.ints.pairs + k / 2 * R;
  const int32_t* numbers = a.ints.sums + k / 16 * R;
  vf total[R][2];
  fetch_head<S>(block, part);
  take_minima<R, S>(below_of<R, S>(a.sums16, a.sums32, k), minima, sums);
  for (int u = 0; u < kPart; u += S::UNIT) {
    vi unit[R][2];
    for (int i = 0; i < R; i++) unit[i][0] = unit[i][1] = vi_set(0);
    for (int s = 0; s < S::UNIT; s += S::SPAN, scales += kColumns) {
      vi c[R][2];
      for (int i = 0; i < R; i++) c[i][0] = c[i][1] = vi_set(0);
      for (int n = 0; n < S::SPAN; n += 16, pairs += 8, numbers += R)
#pragma GCC unroll 2
        for (int j = 0; j < 2; j++, in += kBytes) {
          Codes<S> codes = {in, vi_set(0), vi_set(0)};
          fetch_ahead<S>(in);
          for (int i = 0; i < R && S::BIAS; i++) c[i][j] = c[i][j] - vi_set(S::BIAS * numbers[i]);
#pragma GCC unroll 8
          for (int p = 0; p < 8; p++) {
            const vi code = Codes<S>::take(codes, p);
            for (int i = 0; i < R; i++)
              c[i][j] = dot_pairs(vi_set(pairs[i * kHalf + p]), code, c[i][j]);
          }
        }
      for (int j = 0; j < 2; j++) {
        const vi scale = load8((const int8_t*)scales + 16 * j);
        for (int i = 0; i < R; i++) unit[i][j] = unit[i][j] + c[i][j] * scale;
      }
    }
    add_unit<R>(unit, u == 0, total);
  }
  add_part<R, S>(a.ints.steps + k / kPart * R, total, block, sums);
}

// A weight [N, K] in super-blocks, K a multiple of 256, for rows of type T.
template <class T> struct SuperProduct {
  static const int rows = kWideRows;
  const uint8_t* weight;
  Layout l;
  int64_t blocks;
  SuperSizes sizes;
  bool is_crossed;

  SuperProduct(const void* data, int64_t n, int64_t k)
      : weight((const uint8_t*)data), l(n, k, 0, kInt8), blocks(l.blocks), sizes(l), is_crossed(sums_are_cheap()) {}

  static void begin() {}
  static void end() {}
  static size_t temporary_bytes() { return kMinima * 4 + kWideBytes; }

  int64_t first(const Groups& groups, int64_t g) const { return groups.begin(g); }
  int64_t sum_rows(const Groups& groups) const { return groups.rows; }
  size_t packed_bytes(const Groups& groups) const { return groups.rows * sizes.all() * 4; }
  const float* scale(int64_t) const { return nullptr; }
  bool crosses(const Groups& groups) const { return is_crossed && groups.rows > kAloneRows; }

  void pack(const T* x, const Groups& groups, int64_t g, int i, void* packed) const {
    const int count = groups.size(g);
    const SuperRows out = sizes.at((int32_t*)packed, groups.rows, groups.begin(g));
    const bool is_crossed = crosses(groups);
    pack_int_row(x, nullptr, l, count, i, out.ints, [&](int64_t k, const vi (&pairs)[4], float step) {
      int32_t sums[8], own[8];
      add_up<false>(pairs, sums);
      for (int64_t s = 0, place = k / 16 * count + i; s < 8; s++, place += count) {
        out.ints.sums[place] = sums[s];
        out.sums16[place] = (float)sums[s] * step;
      }
      for (int64_t s = 0, place = k / 32 * count + i; s < 4; s++, place += count)
        out.sums32[place] = (float)(sums[2 * s] + sums[2 * s + 1]) * step;
      if (!is_crossed) return;
      add_up<true>(pairs, own);
      for (int level = 0, left = 8; left; level++, left /= 2)
        for (int64_t s = 0, place = (k >> (4 + level)) * count + i; s < left; s++, place += count) {
          out.own[level][place] = own[s];
          own[s / 2] = s % 2 ? (int32_t)((uint32_t)own[s / 2] + own[s]) : own[s];
        }
    });
  }

  // Of a part, for all rows.
  template <class S, bool CROSS>
  void wide_sums(const Groups& groups, const void* packed, const uint8_t* block, const float* minima, int64_t k,
                 const WidePart& wide, float* out) const {
    for (int64_t g = 0; g < groups.count; g++) {
      const int64_t row = groups.begin(g);
      const SuperRows a = sizes.at((int32_t*)packed, groups.rows, row);
      float* here = out + row * kColumns;
      if (g == 0) {
        QUIRE_FOR_TILES(groups.size(g), (first_tile<R, S, CROSS>(a, block, minima, k, wide, here)))
      } else {
        QUIRE_FOR_TILES(groups.size(g), (wide_tile<R, S, CROSS>(a, block, minima, k, wide, here)))
      }
    }
  }

  template <int FEW, class S>
  void sums_of(const Groups& groups, const void* packed, const uint8_t* block, float* out,
               float* memory) const {
    int32_t* room = (int32_t*)(memory + kMinima);
    const WidePart wide(room);
    for (int64_t k = 0; k < l.depth; k += kPart) {
      const uint8_t* here = block + k / kSuperDepth * S::bytes;
      const int part = (int)(k % kSuperDepth / kPart);
      read_minima<S>(here, part, memory);
      if constexpr (FEW > 0) {
        narrow_tile<FEW, S>(sizes.at((int32_t*)packed, FEW, 0), here, memory, k, out);
      } else if (S::CROSS && crosses(groups) && (S::UNIT > 16 || groups.rows > 12)) {
        wide_sums<S, S::CROSS>(groups, packed, here, memory, k, wide, out);
      } else {
        wide_sums<S, false>(groups, packed, here, memory, k, wide, out);
      }
    }
  }

  void sums(const Groups& groups, const void* packed, int64_t block, float* out, void* memory) const {
    __builtin_memset(out, 0, (size_t)groups.rows * kColumns * 4);
    const int64_t place = ((const int64_t*)weight)[block];
    const uint8_t* data = weight + place / 64 * 64;
    float* room = (float*)memory;
    QUIRE_FOR_SUPER(place % 64, S, switch (groups.rows) {
      case 1: return sums_of<1, S>(groups, packed, data, out, room);
      case 2: return sums_of<2, S>(groups, packed, data, out, room);
#if QUIRE_MAX_ROWS > 3
      case 3: return sums_of<3, S>(groups, packed, data, out, room);
      case 4: return sums_of<4, S>(groups, packed, data, out, room);
#endif
      default: return sums_of<0, S>(groups, packed, data, out, room);
    })
  }
};

}  // namespace quire
