// Products with packed weights of 4 and 8 bits: out [rows, N] = x [rows, K] * weight.T + delta + bias.
//
// Integer weights meet rows of 16-bit integers. A row is cut into parts of 128 numbers, each with a
// step of its own; sums within a part, or within a group of weights with one scale, are exact, and
// float32 begins where they are added up, in rising order: the same bits on every machine. Weights in
// float8 become bfloat16 or float32 and are multiplied as those are.
//
// A block of 32 columns is a row of records, one for each group of k, or one for all of K. A record is
// 32 scales, then 32 zero points and 32 bytes unused where there are zero points, then the numbers:
// two k of a column side by side and, of 4 bits, the two k after them in the upper halves.
#include "dot_int.h"
#include "groups.h"

namespace quire {
namespace {

enum Format { kInt8 = 1, kInt4 = 2, kInt4Zero = 3, kFp8 = 4 };
const int64_t kPart = 128;      // numbers of a row that have one step
const float kLargest = 32512;   // 127 * 256: what the largest of a part becomes
const int64_t kFar = 4096;      // bytes from a weight in use to the one that is fetched meanwhile
const int64_t kNearBytes = 8192;  // of a stretch of weights that stays in the first cache

struct Layout {
  int64_t N, K, depth, group, blocks;
  int head;    // bytes of a record before its numbers
  int halves;  // of a byte in one number
  Layout(int64_t n, int64_t k, int64_t per_scale, int32_t format)
      : N(n), K(k), group(per_scale), blocks((n + kColumns - 1) / kColumns) {
    int64_t unit = group ? group : 32;
    depth = (K + unit - 1) / unit * unit;
    if (!group) group = depth;
    head = format == kInt4Zero ? 192 : 128;
    halves = format == kInt4 || format == kInt4Zero ? 1 : 2;
  }
  int64_t records() const { return depth / group; }
  int64_t bytes(int64_t k) const { return k * kColumns * halves / 2; }
  int64_t record_bytes() const { return head + bytes(group); }
  int64_t block_bytes() const { return records() * record_bytes(); }
};

// --- rows as integers

// Rows of one group: for each two k the pair of each row; for each part its step; for each group of
// weights the sum of the row's integers.
struct IntRows {
  int32_t* pairs;
  float* steps;
  int32_t* sums;
};

struct RowSizes {
  int64_t pairs, steps, sums;  // of one row
  RowSizes(const Layout& l, int64_t unit)
      : pairs(l.depth / 2), steps((l.depth + kPart - 1) / kPart), sums((l.depth + unit - 1) / unit) {}
  int64_t all() const { return pairs + steps + sums; }
  IntRows at(int32_t* memory, int64_t all_rows, int64_t first) const {
    return {memory + first * pairs, (float*)memory + all_rows * pairs + first * steps,
            memory + all_rows * (pairs + steps) + first * sums};
  }
};

// One row of x as row `i` of `rows`. A part with a number that is not finite gets the step NaN.
template <class T>
void pack_int_row(const T* x, const Layout& l, int64_t unit, int rows, int i, IntRows out) {
  for (int64_t k = 0; k < l.depth; k += kPart) {
    alignas(64) int16_t numbers[kPart];
    alignas(64) int32_t lanes[16];
    vf part[kPart / 16];
    vi most = vi_set(0);
    for (int j = 0; j < kPart / 16; j++) {
      int64_t left = l.K - k - 16 * j;
      part[j] = left >= 16 ? load(x + k + 16 * j) : left > 0 ? load(x + k + 16 * j, (int)left) : vf_zero();
      vi size = as_int(part[j]) & vi_set(0x7fffffff);
      most = select(less(most, size), size, most);
    }
    store(lanes, most);
    int32_t largest = 0;
    for (int j = 0; j < 16; j++) largest = lanes[j] > largest ? lanes[j] : largest;
    union { int32_t bits; float value; } limit = {largest};
    float step = limit.value / kLargest, inverse = kLargest / limit.value;
    if (limit.value < 0x1p-100f) step = inverse = 0;  // a row of zeros, or as good as that
    bool whole = largest < 0x7f800000;
    if (!whole) step = __builtin_nanf(""), inverse = 0;
    for (int j = 0; j < kPart / 16; j++) {
      vi number = whole ? to_int(part[j] * vf_set(inverse)) : vi_set(0);
      store16((uint16_t*)numbers + 16 * j, number);
    }
    int64_t room = l.depth - k < kPart ? l.depth - k : kPart;
    out.steps[k / kPart * rows + i] = step;
    for (int64_t from = 0; from < room; from += unit) {
      int32_t sum = 0;
      for (int64_t j = from; j < from + unit && j < room; j++) sum += numbers[j];
      out.sums[(k + from) / unit * rows + i] = sum;
    }
    for (int64_t j = 0; j < room / 2; j++)
      __builtin_memcpy(out.pairs + (k / 2 + j) * rows + i, numbers + 2 * j, 4);
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

// c [R][2] += pairs a [k / 2][R] times numbers b of `k` (a multiple of 32) of 32 columns. Integer
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
        vi number = vi_set(a[(s + half) * R + i]);
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

// sums [R][32] += a group of rows times the numbers of a block from k `from` to `to`, both multiples
// of the weights' group or of kPart. `one_scale`: the scale of all of K is applied later.
template <int R, bool NIBBLES>
void int_tile(IntRows a, const uint8_t* block, const Layout& l, bool one_scale, int64_t from,
              int64_t to, float* sums, Ahead ahead) {
  const int64_t unit = one_scale ? kPart : l.group;
  const uint8_t* b = block + (one_scale ? l.head + l.bytes(from) : from / unit * l.record_bytes());
  for (int64_t k = from; k < to; k += unit) {
    int64_t n = to - k < unit ? to - k : unit;
    const float* scale = (const float*)b;
    vi c[R][2];
    for (int i = 0; i < R; i++)
      for (int j = 0; j < 2; j++) {
        c[i][j] = vi_set(0);
        if (NIBBLES) {
          int32_t sum = a.sums[k / unit * R + i];
          c[i][j] = l.head == 128 ? vi_set(-8 * sum)
                                  : vi_set(-sum) * load8((const int8_t*)(one_scale ? block : b) + 128 + 16 * j);
        }
      }
    if (!one_scale) b += l.head;
    dot_tile<R, NIBBLES>(a.pairs + k / 2 * R, b, n, c, ahead);
    b += l.bytes(n);
    for (int i = 0; i < R; i++) {
      vf step = vf_set(a.steps[k / kPart * R + i]);
      for (int j = 0; j < 2; j++) {
        vf term = to_float(c[i][j]) * step;
        if (!one_scale) term = term * load(scale + 16 * j);
        store(sums + kColumns * i + 16 * j, load(sums + kColumns * i + 16 * j) + term);
      }
    }
  }
}

template <class T>
void finish(const QuireArgs_linear_quantized& args, int64_t row, int rows, int64_t column,
            const float* c, const float* scale) {
  const float* bias = (const float*)args.bias;
  const float* delta = (const float*)args.delta;
  for (int i = 0; i < rows; i++) {
    T* out = (T*)args.out + (row + i) * args.out_stride;
    for (int64_t j = 0; j < kColumns && column + j < args.N; j += 16) {
      int n = args.N - column - j < 16 ? (int)(args.N - column - j) : 16;
      vf sum = load(c + kColumns * i + j);
      if (scale) sum = sum * load(scale + j);
      if (delta) sum = sum + load(delta + (row + i) * args.delta_stride + column + j, n);
      if (bias) sum = sum + load(bias + column + j, n);
      store(out + column + j, sum, n);
    }
  }
}

void int_tile_of(int rows, bool nibbles, IntRows a, const uint8_t* block, const Layout& l,
                 bool one_scale, int64_t from, int64_t to, float* sums, Ahead ahead) {
  if (nibbles) {
    QUIRE_FOR_ROWS(rows, (int_tile<R, true>(a, block, l, one_scale, from, to, sums, ahead)))
  } else {
    QUIRE_FOR_ROWS(rows, (int_tile<R, false>(a, block, l, one_scale, from, to, sums, ahead)))
  }
}

void pack_int_rows(const QuireArgs_linear_quantized& args, const Layout& l, int64_t unit,
                   int64_t row, int rows, IntRows out) {
  for (int i = 0; i < rows; i++) {
    QUIRE_FOR_DTYPE(args.dtype, T,
                    pack_int_row((const T*)args.x + (row + i) * args.x_stride, l, unit, rows, i, out))
  }
}

void int_product(const QuireArgs_linear_quantized& args, Team& team) {
  const Layout l(args.N, args.K, args.group, args.format);
  const bool one_scale = args.group == 0;
  const int64_t unit = one_scale ? kPart : l.group;
  const RowSizes sizes(l, unit);
  for (int64_t start = 0; start < args.rows; start += kChunk) {
    int64_t rows = args.rows - start < kChunk ? args.rows - start : kChunk;
    Groups groups(rows);
    bool is_private = args.rows <= kPrivateRows;
    size_t a_bytes = (size_t)(rows * sizes.all() * 4 + 63) / 64 * 64;
    size_t c_bytes = (size_t)rows * kColumns * 4;
    int32_t* packed = is_private ? nullptr : (int32_t*)team.common(a_bytes);
    char* room = (char*)team.own(c_bytes + (is_private ? a_bytes : 0));
    float* sums = (float*)room;
    if (is_private) packed = (int32_t*)(room + c_bytes);
    int64_t from = 0, to = groups.count;
    if (!is_private) team.part(groups.count, &from, &to);
    for (int64_t g = from; g < to; g++)
      pack_int_rows(args, l, unit, start + groups.begin(g), groups.size(g),
                    sizes.at(packed, rows, groups.begin(g)));
    if (!is_private) team.barrier();
    int64_t stretch = l.depth;
    if (groups.count > 2) {
      stretch = kNearBytes * 2 / (kColumns * l.halves);
      stretch = stretch / kPart * kPart;
    }
    team.part(l.blocks, &from, &to);
    for (int64_t block = from; block < to; block++) {
      const uint8_t* weight = (const uint8_t*)args.weight + block * l.block_bytes();
      __builtin_memset(sums, 0, c_bytes);
      for (int64_t k = 0; k < l.depth; k += stretch) {
        int64_t end = k + stretch < l.depth ? k + stretch : l.depth;
        int64_t here = (end - k) * l.block_bytes() / l.depth;
        for (int64_t g = 0; g < groups.count; g++) {
          Ahead ahead = {(const char*)weight + k * l.block_bytes() / l.depth + kFar, 64};
          if (groups.count > 1) {
            ahead.place += here - kFar + g * (here / groups.count) / 64 * 64;
            ahead.step = here / groups.count / (here / 64);
          }
          int64_t first = groups.begin(g);
          int_tile_of(groups.size(g), l.halves == 1, sizes.at(packed, rows, first), weight, l,
                      one_scale, k, end, sums + first * kColumns, ahead);
        }
      }
      for (int64_t g = 0; g < groups.count; g++) {
        int64_t first = groups.begin(g);
        QUIRE_FOR_DTYPE(args.dtype, T,
                        finish<T>(args, start + first, groups.size(g), block * kColumns,
                                  sums + first * kColumns, one_scale ? (const float*)weight : nullptr))
      }
    }
    if (start + kChunk < args.rows) team.barrier();
  }
}

// --- products of float8

// Numbers of `k` (even) of 32 columns as the kernels of a type want them.
QUIRE_INLINE void widen(const uint8_t* in, int64_t k, bf16* out) {
  for (int64_t i = 0; i < k * kColumns; i += 32) store((int32_t*)(out + i), pairs_from_fp8(in + i));
}
QUIRE_INLINE void widen(const uint8_t* in, int64_t k, f32* out) {
  for (int64_t s = 0; s < k; s += 2)
    for (int j = 0; j < 2; j++) {
      vi pairs = pairs_from_fp8(in + s * kColumns + 32 * j);
      store(out + s * kColumns + 16 * j, as_float(shift_left<16>(pairs)));
      store(out + (s + 1) * kColumns + 16 * j, as_float(pairs & vi_set((int32_t)0xffff0000)));
    }
}

// sums [rows][32] += scale [32] * c [rows][32].
void add_scaled(float* sums, const float* c, const float* scale, int rows) {
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < kColumns; j += 16)
      store(sums + kColumns * i + j,
            load(sums + kColumns * i + j) + load(c + kColumns * i + j) * load(scale + j));
}

template <class T, class W>  // numbers of x, and what weights become
void float_product(const QuireArgs_linear_quantized& args, Team& team) {
  typedef typename Kind<T>::A A;
  const int per = Kind<T>::k;
  const int64_t kStretch = 128;
  const Layout l(args.N, args.K, args.group, args.format);
  const bool one_scale = args.group == 0;
  const int64_t steps = l.depth / per;
  for (int64_t start = 0; start < args.rows; start += kChunk) {
    int64_t rows = args.rows - start < kChunk ? args.rows - start : kChunk;
    Groups groups(rows);
    bool is_private = args.rows <= kPrivateRows;
    size_t a_bytes = (size_t)(rows * steps * sizeof(A) + 63) / 64 * 64;
    size_t c_bytes = (size_t)rows * kColumns * 4, t_bytes = (size_t)kRows * kColumns * 4;
    size_t w_bytes = (size_t)kStretch * kColumns * sizeof(W);
    A* packed = is_private ? nullptr : (A*)team.common(a_bytes);
    char* room = (char*)team.own(c_bytes + t_bytes + w_bytes + (is_private ? a_bytes : 0));
    float* sums = (float*)room;
    float* term = (float*)(room + c_bytes);
    W* wide = (W*)(room + c_bytes + t_bytes);
    if (is_private) packed = (A*)(room + c_bytes + t_bytes + w_bytes);
    int64_t from = 0, to = groups.count;
    if (!is_private) team.part(groups.count, &from, &to);
    for (int64_t g = from; g < to; g++)
      for (int i = 0; i < groups.size(g); i++)
        pack_row((const T*)args.x + (start + groups.begin(g) + i) * args.x_stride, args.K, steps,
                 groups.size(g), packed + groups.begin(g) * steps + i);
    if (!is_private) team.barrier();
    team.part(l.blocks, &from, &to);
    for (int64_t block = from; block < to; block++) {
      const uint8_t* weight = (const uint8_t*)args.weight + block * l.block_bytes();
      __builtin_memset(sums, 0, c_bytes);
      for (int64_t k = 0; k < l.depth; k += kStretch) {
        int64_t n = l.depth - k < kStretch ? l.depth - k : kStretch;
        const uint8_t* record = weight + (one_scale ? l.bytes(k) : k / l.group * l.record_bytes());
        widen(record + l.head, n, wide);
        for (int64_t g = 0; g < groups.count; g++) {
          int64_t first = groups.begin(g);
          const A* a = packed + first * steps + k / per * groups.size(g);
          float* c = one_scale ? sums + first * kColumns : term;
          tile_of(groups.size(g), a, wide, n / per, c, !one_scale, (const char*)wide, 0);
          if (!one_scale)
            add_scaled(sums + first * kColumns, term, (const float*)record, groups.size(g));
        }
      }
      for (int64_t g = 0; g < groups.count; g++) {
        int64_t first = groups.begin(g);
        finish<T>(args, start + first, groups.size(g), block * kColumns, sums + first * kColumns,
                  one_scale ? (const float*)weight : nullptr);
      }
    }
    if (start + kChunk < args.rows) team.barrier();
  }
}

}  // namespace

void linear_quantized(const QuireArgs_linear_quantized& args, Team& team) {
  if (args.format != kFp8) return int_product(args, team);
  switch (args.dtype) {
    case QUIRE_FLOAT32: return float_product<f32, f32>(args, team);
    case QUIRE_BFLOAT16: return float_product<bf16, bf16>(args, team);
    case QUIRE_FLOAT16: return float_product<f16, f32>(args, team);
  }
}

// codes [N, K] of one byte, scales [N, K / group] and zeros of the same shape, to the layout above.
// Columns and numbers that are not there become zeros.
void pack_quantized(const QuireArgs_pack_quantized& args, Team& team) {
  const Layout l(args.N, args.K, args.group, args.format);
  const uint8_t nothing = l.halves == 1 ? 8 : 0;
  int64_t from, to;
  team.part(l.blocks, &from, &to);
  for (int64_t block = from; block < to; block++) {
    uint8_t* out = (uint8_t*)args.out + block * l.block_bytes();
    for (int64_t r = 0; r < l.records(); r++, out += l.record_bytes()) {
      __builtin_memset(out, 0, l.record_bytes());
      for (int64_t j = 0; j < kColumns; j++) {
        int64_t column = block * kColumns + j;
        bool is_there = column < args.N;
        int64_t at = column * l.records() + r;
        ((float*)out)[j] = is_there ? ((const float*)args.scales)[at] : 0;
        if (l.head > 128) out[128 + j] = is_there ? ((const uint8_t*)args.zeros)[at] : 0;
        const uint8_t* codes = (const uint8_t*)args.codes + column * args.stride;
        for (int64_t i = 0; i < l.group; i++) {
          int64_t k = r * l.group + i;
          uint8_t code = is_there && k < args.K ? codes[k] : nothing;
          if (l.halves == 2)
            out[l.head + (i / 2 * kColumns + j) * 2 + i % 2] = code;
          else
            out[l.head + (i / 4 * kColumns + j) * 2 + i % 2] |= (uint8_t)(code << (i / 2 % 2 * 4));
        }
      }
    }
  }
}

}  // namespace quire
