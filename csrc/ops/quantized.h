// Products with packed weights of 4 and 8 bits.
//
// Integer weights meet rows of 16-bit integers. A row is cut into parts of 128 numbers, each with a
// step of its own; sums within a part, or within a group of weights with one scale, are exact, and
// float32 begins where they are added up, in rising order: the same bits on every machine.
//
// A block of 32 columns is a row of records, one for each group of k, or one for all of K. A record is
// 32 scales, as float32 or as float16, then 32 zero points and 32 bytes unused where there are zero points, then
// the numbers: two k of a column side by side and, of 4 bits, the two k after them in the upper halves.
#pragma once
#include "dot_int.h"
#include "product.h"

namespace quire {

enum Format {
  kInt8 = 1, kInt4 = 2, kInt4Zero = 3, kFp8 = 4,
  kInt8Row = 5, kInt8RowZero = 6, kInt8Fixed = 7,  // with rows of 8 bits, see byte_rows.h
  kInt8Zero = 9,
  kHalfScales = 16,  // added to a number of integers in groups: scales are float16
  kShortRows = 32,   // added to a number of four bits or of super-blocks, see short_rows.h
};
QUIRE_INLINE int32_t kind_of(int32_t format) { return format & (kHalfScales - 1); }
QUIRE_INLINE bool has_byte_rows(int32_t format) { return format >= kInt8Row && format <= kInt8Fixed; }
QUIRE_INLINE bool has_zeros(int32_t format) { return kind_of(format) == kInt4Zero || kind_of(format) == kInt8Zero; }
const int64_t kPart = 128;      // numbers of a row that have one step
const int64_t kHalf = kPart / 2;  // pairs of a row in a part
const float kLargest = 28416;   // what the largest of a part becomes: with 4,096 more it fits in 16 bits
const int64_t kAloneRows = 8;   // up to here it does not pay to multiply crosswise
const int64_t kFar = 8192;      // bytes from a weight in use to the one that is fetched meanwhile
const int64_t kWide = kPart * 16;  // pairs of 16 bits of a part of a block

struct Layout {
  int64_t N, K, depth, group, blocks;
  int scales;  // bytes of a record's scales
  int head;    // bytes of a record before its numbers
  int halves;  // of a byte in one number
  Layout(int64_t n, int64_t k, int64_t per_scale, int32_t format)
      : N(n), K(k), group(per_scale), blocks((n + kColumns - 1) / kColumns) {
    int64_t unit = group ? group : 32;
    depth = (K + unit - 1) / unit * unit;
    if (!group) group = depth;
    scales = format & kHalfScales ? 64 : 128;
    head = scales + (has_byte_rows(format) ? 192 : has_zeros(format) ? 64 : 0);
    halves = kind_of(format) == kInt4 || kind_of(format) == kInt4Zero ? 1 : 2;
  }
  int64_t records() const { return depth / group; }
  int64_t bytes(int64_t k) const { return k * kColumns * halves / 2; }
  int64_t record_bytes() const { return head + bytes(group); }
  int64_t block_bytes() const { return records() * record_bytes(); }
};

// --- rows as integers

// Rows of one group: for each part the pairs of each row, of two k each, row after row; its step; for each unit of
// k the sum of the row's integers, or what it has with itself: the sum of products of its pairs, each with the next.
struct IntRows {
  int32_t* pairs;
  float* steps;
  int32_t* sums;
};

struct RowSizes {
  int64_t words, steps, sums;  // of one row
  RowSizes(const Layout& l, int64_t unit, int64_t side = 2)  // numbers of a word
      : words((l.depth + kPart - 1) / kPart * kPart / side), steps((l.depth + kPart - 1) / kPart),
        sums((l.depth + unit - 1) / unit) {}
  int64_t all() const { return words + steps + sums; }
  IntRows at(int32_t* memory, int64_t all_rows, int64_t first) const {
    return {memory + first * words, (float*)memory + all_rows * words + first * steps,
            memory + all_rows * (words + steps) + first * sums};
  }
};

// Numbers of a row from k on, up to kPart of them, as they come or in an order.
template <class T>
QUIRE_INLINE const T* part_of(const T* x, const int32_t* order, int64_t k, int64_t K, T* room) {
  if (!order) return x + k;
  for (int64_t j = 0; j < kPart && k + j < K; j++) room[j] = x[order[k + j]];
  return room;
}

// Sums of each 16 numbers of a part: of the numbers, or of x0 x2 + x1 x3 of each four without what overflows.
template <bool CROSSED> QUIRE_INLINE void add_up(const vi (&pairs)[4], int32_t* out) {
  vi sums[4];
  for (int j = 0; j < 4; j++)
    sums[j] = dot_pairs(pairs[j], CROSSED ? odd_lanes(pairs[j]) : vi_set(0x10001), vi_set(0));
  add_halves(sums, out);
}

// Eight such sums as those of each `unit` of the part's `count` numbers, each `rows` after the last.
QUIRE_INLINE void put_sums(const int32_t* sixteens, int64_t count, int64_t unit, int rows, int32_t* out) {
  for (int64_t from = 0; from < count && from < kPart; from += unit, out += rows) {
    uint32_t sum = 0;
    for (int64_t k = from; k < from + unit && k < kPart; k += 16) sum += sixteens[k / 16];
    *out = (int32_t)sum;
  }
}

// Numbers of a row from k on, zeros beyond the last, and what makes them whole numbers up to `most`. With a number that
// is not finite all become zeros, and the step NaN.
struct RowPart {
  vf numbers[kPart / 16];
  float step, inverse;
  bool whole;

  template <class T> RowPart(const T* x, const int32_t* order, const Layout& l, int64_t k, float most) {
    alignas(64) T ordered[kPart];
    const T* source = part_of(x, order, k, l.K, ordered);
    vi size[kPart / 16];
    for (int j = 0; j < kPart / 16; j++) {
      int64_t left = l.K - k - 16 * j;
      const T* here = source + 16 * j;
      numbers[j] = left >= 16 ? load(here) : left > 0 ? load(here, (int)left) : vf_zero();
      size[j] = as_int(numbers[j]) & vi_set(0x7fffffff);
    }
    for (int width = kPart / 32; width; width /= 2)
      for (int j = 0; j < width; j++) size[j] = max(size[j], size[j + width]);
    union { int32_t bits; float value; } limit = {largest(size[0])};
    step = limit.value / most, inverse = most / limit.value;
    if (limit.value < 0x1p-100f) step = inverse = 0;  // a row of zeros, or as good as that
    whole = limit.bits < 0x7f800000;
    if (!whole) step = __builtin_nanf("");
  }
  QUIRE_INLINE vi take(const RowPart& p, int j) {
    return p.whole ? to_int(p.numbers[j] * vf_set(p.inverse)) : vi_set(0);
  }
};

// One row of x as row `i` of `rows`; `more(k, pairs, step)` has what became of each part.
template <class T, class More>
QUIRE_INLINE void pack_int_row(const T* x, const int32_t* order, const Layout& l, int rows, int i, IntRows out,
                               More more) {
  for (int64_t k = 0; k < l.depth; k += kPart) {
    const RowPart part(x, order, l, k, kLargest);
    vi pairs[4];
    for (int j = 0; j < 4; j++) {
      pairs[j] = pairs_of(RowPart::take(part, 2 * j), RowPart::take(part, 2 * j + 1));
      store(out.pairs + k / 2 * rows + i * kHalf + 16 * j, pairs[j]);
    }
    out.steps[k / kPart * rows + i] = part.step;
    more(k, pairs, part.step);
  }
}

// --- products of integers

struct Ahead {  // weights that come nearer while others are used: 64 bytes for each step
  const char* place;
  int64_t step;
  QUIRE_INLINE void fetch(Ahead& a) {
    __builtin_prefetch(a.place, 0, 2);
    a.place += a.step;
  }
};

// c [R][2] += pairs a of rows [R][kHalf] times numbers b of `k` (a multiple of 32) of 32 columns. Integer
// sums have no order; few rows have two sums each so that one need not wait for the other.
template <int R, bool NIBBLES>
QUIRE_INLINE void dot_tile(const int32_t* a, const uint8_t* b, int64_t k, vi c[R][2], Ahead& ahead) {
  const int kSums = R <= 4 && kRows > 3 ? 2 : 1;
  vi d[kSums][R][2];
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) {
      d[0][i][j] = c[i][j];
      if (kSums > 1) d[kSums - 1][i][j] = vi_set(0);
    }
  for (int64_t s = 0; s < k / 2; s += 2) {
    vi wide[2];
    for (int half = 0; half < 2; half++) {
      vi w[2];
      for (int j = 0; j < 2; j++) {
        if (!NIBBLES) {
          w[j] = pairs_signed(b + 64 * half + 32 * j);
        } else if (half == 0) {
          wide[j] = pairs_unsigned(b + 32 * j);
          w[j] = wide[j] & vi_set(0x000f000f);
        } else {
          w[j] = high_nibbles(wide[j]);
        }
      }
      for (int i = 0; i < R; i++) {
        vi number = vi_set(a[i * kHalf + s + half]);
        for (int j = 0; j < 2; j++)
          d[half % kSums][i][j] = dot_pairs(number, w[j], d[half % kSums][i][j]);
      }
      if (!NIBBLES) Ahead::fetch(ahead);
    }
    if (NIBBLES) Ahead::fetch(ahead);
    b += NIBBLES ? 64 : 128;
  }
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++)
      c[i][j] = kSums > 1 ? d[0][i][j] + d[kSums - 1][i][j] : d[0][i][j];
}

// Where the numbers of a block begin, and how they go on: a record for each unit.
struct IntRecords {
  const uint8_t* at;     // the record, or with one scale the numbers themselves
  const uint8_t* zeros;  // 32 bytes; null: 8 for four bits, else 0
  int64_t unit, bytes;   // k with one exact sum, and bytes from one to the next
  int head;              // bytes before the numbers; 0 where there is one scale
  bool is_half;          // scales are float16

  IntRecords(const uint8_t* block, const Layout& l, bool one_scale)
      : at(one_scale ? block + l.head : block), zeros(l.head > l.scales ? block + l.scales : nullptr),
        unit(one_scale ? kPart : l.group), bytes(one_scale ? l.bytes(kPart) : l.record_bytes()),
        head(one_scale ? 0 : l.head), is_half(l.scales == 64) {}

  // Scales of the left or the right 16 columns.
  QUIRE_INLINE vf scale_of(const IntRecords& r, int j) {
    return r.is_half ? load((const f16*)r.at + 16 * j) : load((const float*)r.at + 16 * j);
  }
  QUIRE_INLINE void next(IntRecords& r) {
    r.at += r.bytes;
    if (r.zeros && r.head) r.zeros += r.bytes;
  }
  QUIRE_INLINE void fetch_head(const IntRecords& r) {
    if (r.head > 0) __builtin_prefetch(r.at + kFar, 0, 2);
    if (r.head > 64) __builtin_prefetch(r.at + kFar + 64, 0, 2);
    if (r.head > 128) __builtin_prefetch(r.at + kFar + 128, 0, 2);
  }
};

// total [R][2] += sums of a unit, times its scales if it has any.
template <int R, bool SCALED>
QUIRE_INLINE void add_unit(const vi (*c)[2], const vf* scale, vf (*total)[2]) {
  for (int j = 0; j < 2; j++)
    for (int i = 0; i < R; i++)
      total[i][j] = total[i][j] + (SCALED ? to_float(c[i][j]) * scale[j] : to_float(c[i][j]));
}

// A total before the first sum: what is added to this keeps its bits, those of -0 too.
template <int R> QUIRE_INLINE void begin_total(vf (*total)[2]) {
  for (int i = 0; i < R; i++) total[i][0] = total[i][1] = vf_set(-0.0f);
}

// sums [R][32] += totals of a part [R][2] times the steps of its rows.
template <int R> QUIRE_INLINE void add_steps(const float* steps, const vf (*total)[2], float* sums) {
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++) {
      float* place = sums + kColumns * i + 16 * j;
      store(place, load(place) + total[i][j] * vf_set(steps[i]));
    }
}

// sums [R][32] += rows times the numbers of a block from k `from`, where a part begins, to `to`; `number` is
// the first of its units among all, and weights `far` away come nearer.
template <int R, bool NIBBLES>
void int_tile(const IntRows& a, const IntRecords& first, int64_t from, int64_t to, int64_t number, int64_t far,
              float* sums) {
  IntRecords record = first;
  const int64_t unit = record.unit;
  const int32_t* row_sums = a.sums + number * R;
  const float* steps = a.steps + from / kPart * R;
  for (int64_t part = from; part < to; part += kPart, steps += R) {
    const int64_t end = to - part < kPart ? to : part + kPart;
    const int32_t* pairs = a.pairs + part / 2 * R;
    vf total[R][2];
    begin_total<R>(total);
    for (int64_t k = part; k < end; k += unit, IntRecords::next(record), row_sums += R) {
      const int64_t n = end - k < unit ? end - k : unit;
      vi c[R][2];
      for (int i = 0; i < R; i++)
        for (int j = 0; j < 2; j++) {
          const int32_t sum = row_sums[i];
          c[i][j] = vi_set(NIBBLES ? -8 * sum : 0);
          if (record.zeros) c[i][j] = vi_set(-sum) * load8((const int8_t*)record.zeros + 16 * j);
        }
      const uint8_t* numbers = record.at + record.head;
      Ahead ahead = {(const char*)numbers + far, far ? 64 : 0};
      if (far) IntRecords::fetch_head(record);
      dot_tile<R, NIBBLES>(pairs, numbers, n, c, ahead);
      if (record.head) {
        const vf scale[2] = {IntRecords::scale_of(record, 0), IntRecords::scale_of(record, 1)};
        add_unit<R, true>(c, scale, total);
      } else {
        add_unit<R, false>(c, nullptr, total);
      }
      pairs += n / 2;
    }
    add_steps<R>(steps, total, sums);
  }
}

// --- tiles of more rows than a few
//
// The first tile widens a part of a block to pairs of 16 bits, and all other rows read it there. Where sums of
// 16 bits cost less than products (`sums_are_cheap`), numbers are multiplied crosswise: x0 w0 + x2 w2 is
// (x0 + w2) (x2 + w0) - x0 x2 - w0 w2, one product in place of two, beside what a row and a column have once
// for all (Winograd, 1968). What overflows 32 bits on the way comes back, so the sum is the same. |x| + |w|
// must be below 2^15: a row's numbers are at most 28,416, and those of a block, less zero points, 255, or 4,096 in
// super-blocks.
// A core that does a product and a sum a cycle, or two sums, is kept busy by two rows of three multiplied so
// and one as it comes.

constexpr int crossed_rows(int rows) { return (2 * rows + 1) / 3; }

// What the tiles of a part share: 64 pairs of 32 columns, of each unit and column the sum that is taken
// away where numbers are multiplied in pairs, and scales as float32.
struct WidePart {
  int32_t* pairs;
  int32_t* less;
  float* scales;
  explicit WidePart(int32_t* memory)
      : pairs(memory), less(memory + kWide), scales((float*)less + kPart / 16 * kColumns) {}
  QUIRE_INLINE void next(WidePart& w) {  // of a unit
    w.less += kColumns;
    w.scales += kColumns;
  }
};
const size_t kWideBytes = (kWide + 2 * kPart / 16 * kColumns) * 4;

// c [R][2] += two pairs of rows [R][kHalf] times pairs of 32 columns, CROSSED rows crosswise.
template <int R, int CROSSED>
QUIRE_INLINE void dot_fours(const int32_t* pairs, const vi (*w)[2], vi (*c)[2]) {
  for (int i = 0; i < CROSSED; i++) {
    const vi one = vi_set(pairs[i * kHalf]), two = vi_set(pairs[i * kHalf + 1]);
    for (int j = 0; j < 2; j++)
      c[i][j] = dot_pairs(add_pairs(one, w[1][j]), add_pairs(two, w[0][j]), c[i][j]);
  }
  for (int half = 0; half < 2; half++)
    for (int i = CROSSED; i < R; i++) {
      const vi number = vi_set(pairs[i * kHalf + half]);
      for (int j = 0; j < 2; j++) c[i][j] = dot_pairs(number, w[half][j], c[i][j]);
    }
}

// c [R][2] before a unit of rows whose products with themselves are `own` [R] meets columns that `less` is taken from.
template <int R, int CROSSED>
QUIRE_INLINE void begin_wide(const int32_t* own, const int32_t* less, vi (*c)[2]) {
  for (int i = 0; i < R; i++)
    for (int j = 0; j < 2; j++)
      c[i][j] = i < CROSSED ? load(less + 16 * j) - vi_set(own[i]) : vi_set(0);
}

// c [R][2] += the first K k of a unit of rows times what was widened, written out.
template <int R, int K, int CROSSED>
QUIRE_INLINE void dot_wide(const int32_t* pairs, const int32_t* wide, vi (*c)[2]) {
#pragma GCC unroll 8
  for (int s = 0; s < K / 4; s++, pairs += 2, wide += 4 * 16) {
    const vi w[2][2] = {{load(wide), load(wide + 16)}, {load(wide + 32), load(wide + 48)}};
    dot_fours<R, CROSSED>(pairs, w, c);
  }
}

// sums [R][32] += R rows times a whole part of a block from k on; the block's numbers, less
// their zero points, are put into `wide`. `number` is the first of its units among all.
template <int R, int UNIT, bool NIBBLES, bool SCALED, bool CROSS>
void first_int_tile(const IntRows& a, const IntRecords& first, int64_t k, int64_t number, const WidePart& part,
                    float* sums) {
  IntRecords record = first;
  WidePart wide = part;
  const int kCrossed = CROSS ? crossed_rows(R) : 0;
  const int32_t *pairs = a.pairs + k / 2 * R, *own = a.sums + number * R;
  vf total[R][2];
  begin_total<R>(total);
  for (int u = 0; u < kPart; u += UNIT, IntRecords::next(record), own += R, WidePart::next(wide)) {
    const uint8_t* b = record.at + record.head;
    IntRecords::fetch_head(record);
    vi c[R][2], zero[2], crossed[2] = {vi_set(0), vi_set(0)};
    for (int i = 0; i < R; i++) c[i][0] = c[i][1] = vi_set(i < kCrossed ? -own[i] : 0);
    for (int j = 0; j < 2; j++) {
      const vi one = record.zeros ? load8((const int8_t*)record.zeros + 16 * j) : vi_set(NIBBLES ? 8 : 0);
      zero[j] = (one & vi_set(0xffff)) | shift_left<16>(one);
    }
#pragma GCC unroll 1
    for (int s = 0; s < UNIT / 4; s++, b += NIBBLES ? 64 : 128, pairs += 2, wide.pairs += 4 * 16) {
      vi w[2][2];
      for (int j = 0; j < 2; j++) {
        if (NIBBLES) {
          const vi both = pairs_unsigned(b + 32 * j);
          w[0][j] = both & vi_set(0x000f000f);
          w[1][j] = high_nibbles(both);
        } else {
          w[0][j] = pairs_signed(b + 32 * j);
          w[1][j] = pairs_signed(b + 64 + 32 * j);
        }
        for (int half = 0; half < 2; half++) {
          w[half][j] = sub_pairs(w[half][j], zero[j]);
          store(wide.pairs + 32 * half + 16 * j, w[half][j]);
        }
        if (CROSS) crossed[j] = dot_pairs(w[0][j], w[1][j], crossed[j]);
      }
      dot_fours<R, kCrossed>(pairs, w, c);
      __builtin_prefetch(b + kFar, 0, 2);
      if (!NIBBLES) __builtin_prefetch(b + kFar + 64, 0, 2);
    }
    for (int j = 0; j < 2 && CROSS; j++) {
      store(wide.less + 16 * j, vi_set(0) - crossed[j]);
      for (int i = 0; i < kCrossed; i++) c[i][j] = c[i][j] - crossed[j];
    }
    vf scale[2];
    for (int j = 0; j < 2 && SCALED; j++) {
      scale[j] = IntRecords::scale_of(record, j);
      store(wide.scales + 16 * j, scale[j]);
    }
    add_unit<R, SCALED>(c, scale, total);
  }
  add_steps<R>(a.steps + k / kPart * R, total, sums);
}

// The same for rows that come later, with numbers that were widened.
template <int R, int UNIT, bool SCALED, bool CROSS>
QUIRE_INLINE void wide_int_tile(const IntRows& a, int64_t k, int64_t number, const WidePart& part, float* sums) {
  const int kCrossed = CROSS ? crossed_rows(R) : 0;
  WidePart wide = part;
  const int32_t *pairs = a.pairs + k / 2 * R, *own = a.sums + number * R;
  vf total[R][2];
  begin_total<R>(total);
  for (int u = 0; u < kPart; u += UNIT, own += R, WidePart::next(wide)) {
    vi c[R][2];
    begin_wide<R, kCrossed>(own, wide.less, c);
    for (int n = 0; n < UNIT; n += 32)  // as much as is written out: GCC 12 copies sums at every turn
      dot_wide<R, 32, kCrossed>(pairs + n / 2, wide.pairs + n * 16, c);
    const vf scale[2] = {load(wide.scales), load(wide.scales + 16)};
    add_unit<R, SCALED>(c, scale, total);
    pairs += UNIT / 2;
    wide.pairs += UNIT * 16;
  }
  add_steps<R>(a.steps + k / kPart * R, total, sums);
}

// The same for `count` groups of R rows.
template <int R, int UNIT, bool SCALED, bool CROSS>
void wide_int_tiles(const IntRows& first, const RowSizes& sizes, int64_t count, int64_t k, int64_t number,
                    const WidePart& wide, float* sums) {
  IntRows a = first;
  for (int64_t g = 0; g < count; g++, sums += R * kColumns) {
    wide_int_tile<R, UNIT, SCALED, CROSS>(a, k, number, wide, sums);
    a = {a.pairs + R * sizes.words, a.steps + R * sizes.steps, a.sums + R * sizes.sums};
  }
}

// Calls `body` with the number of rows that a tile of widened numbers takes, as a constant R.
#if QUIRE_MAX_ROWS > 3
const int kWideRows = 6, kFewRows = 4;  // twice as many sums, and as many totals; rows that stand alone
#define QUIRE_FOR_TILES(rows, ...)  \
  switch (rows) {                   \
    QUIRE_ROWS_CASE(3, __VA_ARGS__) \
    QUIRE_ROWS_CASE(4, __VA_ARGS__) \
    QUIRE_ROWS_CASE(5, __VA_ARGS__) \
    QUIRE_ROWS_CASE(6, __VA_ARGS__) \
  }
#else
const int kWideRows = kRows, kFewRows = 2;
#define QUIRE_FOR_TILES QUIRE_FOR_ROWS
#endif

// A weight [N, K] of whole numbers, for rows of type T.
template <class T> struct IntProduct {
  const uint8_t* weight;
  const int32_t* order;  // of a row's numbers; null: as they come
  Layout l;
  bool one_scale;
  int64_t unit, blocks;
  RowSizes sizes;
  bool is_crossed;
  int rows;  // with scales for fewer k, or crosswise, numbers are widened once for all rows

  IntProduct(const void* data, int64_t n, int64_t k, int64_t group, int32_t format,
             const void* places = nullptr)
      : weight((const uint8_t*)data), order((const int32_t*)places), l(n, k, group, format), one_scale(group == 0),
        unit(one_scale ? kPart : l.group), blocks(l.blocks), sizes(l, unit),
        is_crossed(sums_are_cheap() && (unit < kPart || l.depth % kPart == 0)),
        rows(unit == kPart && !is_crossed ? kRows : kWideRows) {}

  static void begin() {}
  static void end() {}
  static size_t temporary_bytes() { return kWideBytes; }

  int64_t first(const Groups& groups, int64_t g) const { return groups.begin(g); }
  int64_t sum_rows(const Groups& groups) const { return groups.rows; }
  size_t packed_bytes(const Groups& groups) const { return groups.rows * sizes.all() * 4; }
  const uint8_t* block_of(int64_t block) const { return weight + block * l.block_bytes(); }
  const float* scale(int64_t block) const {
    return one_scale ? (const float*)block_of(block) : nullptr;
  }
  bool crosses(const Groups& groups) const { return is_crossed && groups.rows > kAloneRows; }
  bool is_wide(const Groups& groups) const {
    return unit < kPart ? groups.rows > kFewRows : crosses(groups);
  }

  void pack(const T* x, const Groups& groups, int64_t g, int i, void* packed) const {
    const IntRows out = sizes.at((int32_t*)packed, groups.rows, groups.begin(g));
    const bool is_crossed = crosses(groups);  // then tiles read what rows have with themselves in place of their sums
    const int rows = groups.size(g);
    pack_int_row(x, order, l, rows, i, out, [&](int64_t k, const vi (&pairs)[4], float) {
      int32_t sixteens[8];
      if (is_crossed && l.depth - k >= kPart) add_up<true>(pairs, sixteens);
      else add_up<false>(pairs, sixteens);
      put_sums(sixteens, l.depth - k, unit, rows, out.sums + k / unit * rows + i);
    });
  }

  template <int UNIT, bool NIBBLES, bool SCALED, bool CROSS>
  void wide_sums(const Groups& groups, const void* packed, const uint8_t* data, float* out,
                 const WidePart& wide) const {
    IntRecords record(data, l, one_scale);
    for (int64_t k = 0, number = 0; k < l.depth; k += kPart, number += kPart / UNIT) {
      const bool is_whole = l.depth - k >= kPart;
      for (int64_t g = 0, alike = 1; g < groups.count; g += alike) {
        const int64_t row = groups.begin(g);
        const IntRows a = sizes.at((int32_t*)packed, groups.rows, row);
        float* here = out + row * kColumns;
        alike = 1;
        if (!is_whole) {
          QUIRE_FOR_TILES(groups.size(g), (int_tile<R, NIBBLES>(a, record, k, l.depth, number, 0, here)))
        } else if (g == 0) {
          QUIRE_FOR_TILES(groups.size(g),
                          (first_int_tile<R, UNIT, NIBBLES, SCALED, CROSS>(a, record, k, number, wide, here)))
        } else {
          alike = (g < groups.smaller ? groups.smaller : groups.count) - g;
          QUIRE_FOR_TILES(groups.size(g),
                          (wide_int_tiles<R, UNIT, SCALED, CROSS>(a, sizes, alike, k, number, wide, here)))
        }
      }
      for (int u = 0; u < kPart / UNIT; u++) IntRecords::next(record);
    }
  }

  template <bool NIBBLES>
  void sums_of(const Groups& groups, const void* packed, const uint8_t* data, float* out,
               int32_t* memory) const {
    if (is_wide(groups)) {
      const WidePart wide(memory);
      const bool is_crossed = crosses(groups);
      if (one_scale) return wide_sums<kPart, NIBBLES, false, kCrosses>(groups, packed, data, out, wide);
      if (unit == kPart) return wide_sums<kPart, NIBBLES, true, kCrosses>(groups, packed, data, out, wide);
      if (unit == 32 && is_crossed) return wide_sums<32, NIBBLES, true, kCrosses>(groups, packed, data, out, wide);
      if (unit == 32) return wide_sums<32, NIBBLES, true, false>(groups, packed, data, out, wide);
      if (is_crossed) return wide_sums<64, NIBBLES, true, kCrosses>(groups, packed, data, out, wide);
      return wide_sums<64, NIBBLES, true, false>(groups, packed, data, out, wide);
    }
    const int64_t stretch = groups.count == 1 ? l.depth : kPart;
    IntRecords record(data, l, one_scale);
    for (int64_t k = 0, number = 0; k < l.depth; k += stretch, number += kPart / unit) {
      const int64_t end = l.depth - k < stretch ? l.depth : k + stretch;
      for (int64_t g = 0; g < groups.count; g++) {
        const int64_t row = groups.begin(g), far = g == 0 ? kFar : 0;
        const IntRows a = sizes.at((int32_t*)packed, groups.rows, row);
        QUIRE_FOR_ROWS(groups.size(g), (int_tile<R, NIBBLES>(a, record, k, end, number, far,
                                                             out + row * kColumns)))
      }
      for (int64_t u = 0; u < kPart / unit; u++) IntRecords::next(record);
    }
  }

  void sums(const Groups& groups, const void* packed, int64_t block, float* out, void* memory) const {
    __builtin_memset(out, 0, (size_t)groups.rows * kColumns * 4);
    if (l.halves == 1) return sums_of<true>(groups, packed, block_of(block), out, (int32_t*)memory);
    sums_of<false>(groups, packed, block_of(block), out, (int32_t*)memory);
  }
};

}  // namespace quire
