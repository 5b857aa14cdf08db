// Products of weights of 2 to 8 bits with rows rounded to 8 bits, 128 numbers at a time.
//
// They are those of quantized.h and superblocks.h with rows of whole numbers up to 127 in place of 28,416: the same
// exact sums, and float32 in the same order. A multiplication takes four numbers of a lane in place of two, so that
// products of many rows are half the work. In a record or super-block only the numbers lie in another way: four k of a
// column side by side, and what fills up a byte is of the four k after them. Codes of 8 bits are stored from 0 up, 128
// more than they are.
#pragma once
#include "superblocks.h"

namespace quire {

const int64_t kQuads = kPart / 4;  // words of a row in a part
const float kLargestShort = 127;   // what the largest of a part becomes
const int kShortTile = kRows < 5 ? kRows : 5;  // rows of a tile: as many as leave registers for codes and totals
const int kShortUnits = kRows < 6 ? kRows : 6;  // the same of four and eight bits where parts have several units
const int64_t kShortFar = 12288;               // as kFar, of super-blocks
const int64_t kShortStretch = 4 * kPart;       // k that the tiles of all rows go over in turn

// Rows of one group: for each part the words of each row, of four k each; its step; what is taken away, the sum of its
// numbers times what a code of zero is, if that is one number for all, for each unit; and of super-blocks, what sums of
// 16 and of 32 numbers stand for.
struct ShortRows {
  const int32_t* words;
  const float* steps;
  const int32_t* less;
  const float *sums16, *sums32;
};

// One row of x as row `i` of `rows`; `more(k, sums, step)` has the sums of each 16 numbers of each part.
template <class T, class More>
QUIRE_INLINE void pack_short_row(const T* x, const int32_t* order, const Layout& l, int rows, int i, IntRows out,
                                 More more) {
  for (int64_t k = 0; k < l.depth; k += kPart) {
    const RowPart part(x, order, l, k, kLargestShort);
    int8_t* bytes = (int8_t*)(out.pairs + k / 4 * rows + i * kQuads);
    vi pairs[4];
    for (int j = 0; j < 4; j++) {
      const vi left = RowPart::take(part, 2 * j), right = RowPart::take(part, 2 * j + 1);
      pairs[j] = pairs_of(left, right);
      store8(bytes + 32 * j, left);
      store8(bytes + 32 * j + 16, right);
    }
    out.steps[k / kPart * rows + i] = part.step;
    int32_t sums[8];
    add_up<false>(pairs, sums);
    more(k, sums, part.step);
  }
}

// Calls `body` with the number of rows of a tile, as a constant R.
#if QUIRE_MAX_ROWS > 3
#define QUIRE_FOR_SHORT(rows, ...)     \
  switch (rows) {                      \
    QUIRE_ROWS_CASE(1, __VA_ARGS__)    \
    QUIRE_ROWS_CASE(2, __VA_ARGS__)    \
    QUIRE_ROWS_CASE(3, __VA_ARGS__)    \
    QUIRE_ROWS_CASE(4, __VA_ARGS__)    \
    QUIRE_ROWS_CASE(5, __VA_ARGS__)    \
  }
#define QUIRE_FOR_SHORT_UNITS(rows, ...) \
  switch (rows) {                        \
    QUIRE_ROWS_CASE(1, __VA_ARGS__)      \
    QUIRE_ROWS_CASE(2, __VA_ARGS__)      \
    QUIRE_ROWS_CASE(3, __VA_ARGS__)      \
    QUIRE_ROWS_CASE(4, __VA_ARGS__)      \
    QUIRE_ROWS_CASE(5, __VA_ARGS__)      \
    QUIRE_ROWS_CASE(6, __VA_ARGS__)      \
  }
#else
#define QUIRE_FOR_SHORT QUIRE_FOR_ROWS
#define QUIRE_FOR_SHORT_UNITS QUIRE_FOR_ROWS
#endif

// c [R][2] += words of rows [R][kQuads] times codes of 32 columns, those up to 63 unless they are WHOLE bytes.
template <int R, bool WHOLE = false>
QUIRE_INLINE void dot_words(const int32_t* words, const vi (&codes)[2], vi (*c)[2]) {
QUIRE_WRITTEN_OUT
  for (int i = 0; i < R; i++) {
    const vi number = vi_set(words[i * kQuads]);
QUIRE_WRITTEN_OUT
    for (int j = 0; j < 2; j++)
      c[i][j] = WHOLE ? dot_whole_bytes(codes[j], number, c[i][j]) : dot_bytes(codes[j], number, c[i][j]);
  }
}

// c [R][2] before a unit: what its rows' `less` takes away, times zero points if the record has them, each `bias` more.
template <int R>
QUIRE_INLINE void begin_short(const int32_t* less, const IntRecords& record, int bias, vi (*c)[2]) {
  if (record.zeros) {
    const vi zeros[2] = {load8((const int8_t*)record.zeros) + vi_set(bias),
                         load8((const int8_t*)record.zeros + 16) + vi_set(bias)};
QUIRE_WRITTEN_OUT
    for (int i = 0; i < R; i++)
QUIRE_WRITTEN_OUT
      for (int j = 0; j < 2; j++) c[i][j] = vi_set(less[i]) * zeros[j];
  } else {
QUIRE_WRITTEN_OUT
    for (int i = 0; i < R; i++) c[i][0] = c[i][1] = vi_set(less[i]);
  }
}

enum ShortCodes { kNibbles, kBytes, kNearBytes };  // near: nothing is asked for in advance

// c [R][2] += words of rows times codes of `n` k, a multiple of 32; `far` from them others come nearer.
template <int R, ShortCodes CODES>
QUIRE_INLINE void dot_short(const int32_t* words, const uint8_t* codes, int64_t n, int64_t far, vi (*c)[2]) {
  const int kTurn = R > 5 || kRows < 3 ? 8 : 32;  // k that are written out
  const int kStep = CODES == kNibbles ? 128 : 256;
  const vi mask = vi_set(0x0f0f0f0f);
  for (int64_t s = 0; s < n; s += kTurn)
#pragma GCC unroll 4
    for (int q = 0; q < kTurn; q += 8, codes += kStep, words += 2) {
      const int32_t* in = (const int32_t*)codes;
      const vi first[2] = {load(in), load(in + 16)};
      for (int b = 0; b < kStep && CODES != kNearBytes; b += 64) __builtin_prefetch(codes + far + b, 0, 2);
      if (CODES == kNibbles) {
        dot_words<R>(words, {first[0] & mask, first[1] & mask}, c);
        dot_words<R>(words + 1, {shift_right<4>(first[0]) & mask, shift_right<4>(first[1]) & mask}, c);
      } else {
        dot_words<R, true>(words, first, c);
        dot_words<R, true>(words + 1, {load(in + 32), load(in + 48)}, c);
      }
    }
}

// sums [R][32] += sums of a part that is one unit, times scales and the steps of its rows.
template <int R>
QUIRE_INLINE void add_short_part(const vi (*c)[2], const vf (&scale)[2], const float* steps, float* sums) {
  __asm__ volatile("" : : : "memory");  // else GCC 12 keeps a second copy of all sums
QUIRE_WRITTEN_OUT
  for (int i = 0; i < R; i++) {
    const vf step = vf_set(steps[i]);
QUIRE_WRITTEN_OUT
    for (int j = 0; j < 2; j++) {
      float* place = sums + kColumns * i + 16 * j;
      store(place, load(place) + to_float(c[i][j]) * scale[j] * step);
    }
  }
}

// sums [R][32] += rows times a stretch of a block of four bits or of bytes, from k `from`, where a part begins, to
// `to`; `number` is the first of its units among all, ONE to a part or several.
template <int R, ShortCodes CODES, bool ONE>
void short_tile(const ShortRows& a, const IntRecords& first, int bias, int64_t from, int64_t to, int64_t number,
                int64_t far, float* sums) {
  IntRecords record = first;
  const int32_t* less = a.less + number * R;
  const float* steps = a.steps + from / kPart * R;
  for (int64_t part = from; part < to; part += kPart, steps += R) {
    const int64_t end = to - part < kPart ? to : part + kPart, unit = ONE ? end - part : record.unit;
    const int32_t* words = a.words + part / 4 * R;
    vf total[R][2];
    if (!ONE) begin_total<R>(total);
    for (int64_t k = part; ONE || k < end; k += unit, words += unit / 4) {
      vi c[R][2];
      begin_short<R>(less, record, bias, c);
      if (far && CODES != kNearBytes) IntRecords::fetch_head(record);
      vf scale[2] = {vf_set(1), vf_set(1)};  // which changes no bits
      for (int j = 0; j < 2 && ONE && record.head; j++) scale[j] = IntRecords::scale_of(record, j);
      dot_short<R, CODES>(words, record.at + record.head, unit, far, c);
      for (int j = 0; j < 2 && !ONE; j++) scale[j] = IntRecords::scale_of(record, j);
      less += R;
      if (ONE) add_short_part<R>(c, scale, steps, sums);
      else add_unit<R, true>(c, scale, total);
      IntRecords::next(record);
      if (ONE) break;
    }
    if (!ONE) add_steps<R>(steps, total, sums);
  }
}

// sums [R][32] += R rows times a super-block from k on, whose parts have `minima` one after the other. Sums of codes
// times scales stay below 2^24, where float32 is exact.
template <int R, class S>
void short_super_tile(const ShortRows& a, const uint8_t* block, const float* minima, int64_t k, bool fetches,
                      float* sums) {
  const int kBytes = (S::LOW + S::HIGH) * 64;  // of 32 k of 16 columns
  const int kEach = 2 * kBytes / 8;            // of four k of all columns
  const int kShift = S::BIAS == 32 ? 5 : 2;
  const uint8_t *in = block + S::codes, *scales = block + S::scales;
  const int32_t* less = a.less + k / 16 * R;
  for (int64_t part = 0; part < kSuperDepth / kPart; part++, k += kPart, minima += kMinima) {
    const int32_t* words = a.words + k / 4 * R;
    vf total[R][2], unit[R][2];
    if (fetches) fetch_head<S>(block, part, kShortFar);
    take_minima<R, S>(below_of<R, S>(a.sums16, a.sums32, k), minima, sums);
    for (int n = 0; n < kPart; n += 32, in += 2 * kBytes) {
      Codes<S, 4> from[2] = {{in, vi_set(0), vi_set(0)}, {in + kBytes, vi_set(0), vi_set(0)}};
#pragma GCC unroll 2
      for (int s = 0; s < 32; s += S::SPAN, scales += kColumns, less += S::SPAN / 16 * R) {
        vi c[R][2];
        for (int i = 0; i < R; i++)
          for (int j = 0; j < 2; j++) c[i][j] = S::BIAS ? shift_left<kShift>(vi_set(less[i])) : vi_set(0);
#pragma GCC unroll 8
        for (int q = s / 4; q < (s + S::SPAN) / 4; q++, words++) {
          const vi codes[2] = {Codes<S, 4>::take(from[0], q), Codes<S, 4>::take(from[1], q)};
          for (int b = (q * kEach + 63) / 64 * 64; b < (q + 1) * kEach && fetches; b += 64)
            __builtin_prefetch(in + kShortFar + b, 0, 2);
          dot_words<R>(words, codes, c);
        }
          const bool begins = (n + s) % S::UNIT == 0, ends = (n + s + S::SPAN) % S::UNIT == 0;
        const bool fresh = n + s + S::SPAN == S::UNIT;
        for (int j = 0; j < 2; j++) {
          const vf scale = to_float(load8((const int8_t*)scales + 16 * j));
          for (int i = 0; i < R; i++) {
            unit[i][j] = begins ? to_float(c[i][j]) * scale : fma(to_float(c[i][j]), scale, unit[i][j]);
            if (ends) total[i][j] = fresh ? unit[i][j] : total[i][j] + unit[i][j];
          }
        }
      }
    }
    add_part<R, S>(a.steps + k / kPart * R, total, block, sums);
  }
}

// Rows of 8 bits for products with weights whose units have `unit` k.
struct ShortSizes {
  RowSizes ints;
  int64_t floats;  // sums as floats of one row, of 16 k and of 32 k
  ShortSizes(const Layout& l, int64_t unit, bool has_floats)
      : ints(l, unit, 4), floats(has_floats ? ints.sums + ints.sums / 2 : 0) {}
  int64_t all() const { return ints.all() + floats; }
  float* sums16(int32_t* memory, int64_t all_rows, int64_t first) const {
    return (float*)memory + all_rows * ints.all() + first * ints.sums;
  }
  float* sums32(int32_t* memory, int64_t all_rows, int64_t first) const {
    return (float*)memory + all_rows * (ints.all() + ints.sums) + first * (ints.sums / 2);
  }
  ShortRows at(const void* packed, int64_t all_rows, int64_t first) const {
    int32_t* memory = (int32_t*)packed;
    const IntRows rows = ints.at(memory, all_rows, first);
    return {rows.pairs, rows.steps, rows.sums, sums16(memory, all_rows, first), sums32(memory, all_rows, first)};
  }
};

// A weight [N, K] of four or eight bits, for rows of type T.
template <class T> struct ShortProduct {
  const uint8_t* weight;
  const int32_t* order;  // of a row's numbers; null: as they come
  Layout l;
  bool one_scale;
  int64_t unit, blocks;
  ShortSizes sizes;
  int bias;  // that a stored byte has beside its code
  int zero;  // what is taken from a stored code where there are no zero points
  int rows;

  ShortProduct(const void* data, int64_t n, int64_t k, int64_t group, int32_t format, const void* places = nullptr)
      : weight((const uint8_t*)data), order((const int32_t*)places), l(n, k, group, format), one_scale(group == 0),
        unit(one_scale ? kPart : l.group), blocks(l.blocks), sizes(l, unit, false), bias(l.halves == 2 ? 128 : 0),
        zero(has_zeros(format) ? 1 : l.halves == 2 ? 128 : 8), rows(unit == kPart ? kRows : kShortUnits) {}

  static void begin() {}
  static void end() {}
  static size_t temporary_bytes() { return 0; }

  int64_t first(const Groups& groups, int64_t g) const { return groups.begin(g); }
  int64_t sum_rows(const Groups& groups) const { return groups.rows; }
  size_t packed_bytes(const Groups& groups) const { return groups.rows * sizes.all() * 4; }
  const uint8_t* block_of(int64_t block) const { return weight + block * l.block_bytes(); }
  const float* scale(int64_t block) const { return one_scale ? (const float*)block_of(block) : nullptr; }

  void pack(const T* x, const Groups& groups, int64_t g, int i, void* packed) const {
    const IntRows out = sizes.ints.at((int32_t*)packed, groups.rows, groups.begin(g));
    const int count = groups.size(g);
    pack_short_row(x, order, l, count, i, out, [&](int64_t k, int32_t (&sums)[8], float) {
      for (int32_t& sum : sums) sum *= -zero;
      put_sums(sums, l.depth - k, unit, count, out.sums + k / unit * count + i);
    });
  }

  template <ShortCodes CODES>
  void tile_of(int count, const ShortRows& a, const IntRecords& record, int64_t from, int64_t to, int64_t number,
               int64_t far, float* out) const {
    if (unit == kPart) {
      QUIRE_FOR_ROWS(count, (short_tile<R, CODES, true>(a, record, bias, from, to, number, far, out)))
    } else {
      QUIRE_FOR_SHORT_UNITS(count, (short_tile<R, CODES, false>(a, record, bias, from, to, number, far, out)))
    }
  }

  template <class Done = Nobody>
  void sums(const Groups& groups, const void* packed, int64_t block, float* out, void*, Done done = {}) const {
    __builtin_memset(out, 0, (size_t)groups.rows * kColumns * 4);
    IntRecords record(block_of(block), l, one_scale);
    const int64_t stretch = groups.count == 1 ? l.depth : kShortStretch;
    for (int64_t k = 0, number = 0; k < l.depth; k += stretch, number += stretch / unit) {
      const int64_t end = l.depth - k < stretch ? l.depth : k + stretch;
      for (int64_t g = 0; g < groups.count; g++) {
        const int64_t row = groups.begin(g), far = g == 0 ? kFar : 0;
        const int count = groups.size(g);
        const ShortRows a = sizes.at(packed, groups.rows, row);
        float* sums = out + row * kColumns;
        if (l.halves == 1) tile_of<kNibbles>(count, a, record, k, end, number, far, sums);
        else if (far || kRows <= 3) tile_of<kBytes>(count, a, record, k, end, number, far, sums);
        else if constexpr (kRows > 3) tile_of<kNearBytes>(count, a, record, k, end, number, 0, sums);
        if (end == l.depth) done(g);
      }
      for (int64_t u = 0; u < stretch / unit; u++) IntRecords::next(record);
    }
  }
};

// A weight [N, K] in super-blocks of at most six bits, K a multiple of 256, for rows of type T.
template <class T> struct ShortSuperProduct {
  static const int rows = kShortTile;
  const uint8_t* weight;
  Layout l;
  int64_t blocks;
  ShortSizes sizes;

  ShortSuperProduct(const void* data, int64_t n, int64_t k)
      : weight((const uint8_t*)data), l(n, k, 0, kInt8), blocks(l.blocks), sizes(l, 16, true) {}

  static void begin() {}
  static void end() {}
  static size_t temporary_bytes() { return kSuperDepth / kPart * kMinima * 4; }

  int64_t first(const Groups& groups, int64_t g) const { return groups.begin(g); }
  int64_t sum_rows(const Groups& groups) const { return groups.rows; }
  size_t packed_bytes(const Groups& groups) const { return groups.rows * sizes.all() * 4; }
  const float* scale(int64_t) const { return nullptr; }

  void pack(const T* x, const Groups& groups, int64_t g, int i, void* packed) const {
    const int64_t count = groups.size(g), begin = groups.begin(g);
    const IntRows out = sizes.ints.at((int32_t*)packed, groups.rows, begin);
    float* sums16 = sizes.sums16((int32_t*)packed, groups.rows, begin) + i;
    float* sums32 = sizes.sums32((int32_t*)packed, groups.rows, begin) + i;
    pack_short_row(x, nullptr, l, count, i, out, [&](int64_t k, const int32_t (&sums)[8], float step) {
      for (int64_t s = 0, place = k / 16 * count; s < 8; s++, place += count) {
        out.sums[place + i] = -sums[s];
        sums16[place] = (float)sums[s] * step;
      }
      for (int64_t s = 0, place = k / 32 * count; s < 4; s++, place += count)
        sums32[place] = (float)(sums[2 * s] + sums[2 * s + 1]) * step;
    });
  }

  template <class S>
  void sums_of(const Groups& groups, const void* packed, const uint8_t* block, float* minima, float* out) const {
    for (int64_t k = 0; k < l.depth; k += kSuperDepth, block += S::bytes) {
      for (int part = 0; part < kSuperDepth / kPart; part++) read_minima<S>(block, part, minima + part * kMinima);
      for (int64_t g = 0; g < groups.count; g++) {
        const int64_t row = groups.begin(g);
        QUIRE_FOR_SHORT(groups.size(g), (short_super_tile<R, S>(sizes.at(packed, groups.rows, row), block, minima, k,
                                                                g == 0, out + row * kColumns)))
      }
    }
  }

  void sums(const Groups& groups, const void* packed, int64_t block, float* out, void* memory) const {
    __builtin_memset(out, 0, (size_t)groups.rows * kColumns * 4);
    const int64_t place = ((const int64_t*)weight)[block];
    const uint8_t* data = weight + place / 64 * 64;
    QUIRE_FOR_SHORT_SUPER(place % 64, S, return sums_of<S>(groups, packed, data, (float*)memory, out))
  }
};

}  // namespace quire
