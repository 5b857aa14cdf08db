// Products of rows rounded to 8 bits with packed weights of 8 bits.
//
// A row has one step, and a code of zero; sums over all of K are exact in 32 bits for K up to 65,536, so
// they have no order. Codes go in as bytes from 0 up, and what that adds is taken off again with the sums
// of the columns. In a block's record stand 32 scales, 32 column sums, and the step and the code of zero
// where those are the weight's own; then the numbers, four k of a column side by side.
#pragma once
#include "quantized.h"

namespace quire {

const int64_t kByteStretch = 512;  // k of a stretch of weights that stays in the first cache
const int64_t kSumsAt = 128, kStepAt = 256, kShiftAt = 260;  // bytes of a record

// Rows of one group: for each four k the bytes of each row; each row's step, and its byte for zero.
struct ByteRows {
  uint32_t* quads;
  float* steps;
  int32_t* zeros;
};

// How a row is rounded; `size` of its largest magnitude as bits, `low` and `high` with zero among them.
struct ByteScale {
  float step, shift;
  bool whole;  // all of the row is finite

  ByteScale(int32_t format, const uint8_t* record, int32_t size, float low, float high) {
    union { int32_t bits; float value; } limit = {size};
    shift = 0;
    if (format == kInt8Fixed) {
      step = *(const float*)(record + kStepAt);
      shift = (float)*(const int32_t*)(record + kShiftAt);
    } else if (format == kInt8Row) {
      step = limit.value / 127.5f;
    } else {
      step = (high - low) / 255.0f;
    }
    whole = size < 0x7f800000 && step < __builtin_inff();
    bool there = whole && step >= 0x1p-100f;
    if (format == kInt8RowZero && there) {
      float lanes[16];
      store(lanes, round(max(min(vf_set(-128.0f - low / step), vf_set(127)), vf_set(-128))));
      shift = lanes[0];
    }
    if (!there) step = 0;
  }
};

// One row of x, 16 bytes at a time: `put(k, bytes)`. A row with a number that is not finite gets the step NaN.
template <class T, class Put>
void pack_byte_row(const T* x, const Layout& l, int32_t format, const uint8_t* record, float& row_step, int32_t& zero,
                   Put put) {
  vi most = vi_set(0);
  vf least = vf_zero(), largest_yet = vf_zero();
  for (int64_t k = 0; k < l.K; k += 16) {
    vf number = l.K - k >= 16 ? load(x + k) : load(x + k, (int)(l.K - k));
    vi size = as_int(number) & vi_set(0x7fffffff);
    most = select(less(most, size), size, most);
    least = min(number, least);
    largest_yet = max(number, largest_yet);
  }
  alignas(64) int32_t lanes[16];
  store(lanes, most);
  int32_t size = 0;
  for (int j = 0; j < 16; j++) size = lanes[j] > size ? lanes[j] : size;
  const ByteScale scale(format, record, size, -largest(vf_zero() - least), largest(largest_yet));
  row_step = scale.whole ? scale.step : __builtin_nanf("");
  zero = 128 + (int32_t)scale.shift;
  const vf step = vf_set(scale.step), shift = vf_set(scale.shift);
  for (int64_t k = 0; k < l.depth; k += 16) {
    int64_t left = l.K - k;
    vi code = vi_set((int32_t)scale.shift);
    if (scale.whole && scale.step != 0 && left > 0) {
      vf number = left >= 16 ? load(x + k) : load(x + k, (int)left);
      code = to_int(max(min(number / step + shift, vf_set(127)), vf_set(-128)));
    }
    put(k, code + vi_set(128));
  }
}

// c [R][32] += bytes a [k / 4][R] times numbers b of `k` (a multiple of 32) of 32 columns.
template <int R>
void byte_tile(const uint32_t* a, const uint8_t* b, int64_t k, int32_t* c, Ahead ahead) {
  const int kSums = R <= 4 && kRows > 3 ? 2 : 1;  // as in dot_tile
  vi d[kSums][R][2];
QUIRE_WRITTEN_OUT
  for (int i = 0; i < R; i++)
QUIRE_WRITTEN_OUT
    for (int j = 0; j < 2; j++) {
      d[0][i][j] = load(c + kColumns * i + 16 * j);
      if (kSums > 1) d[kSums - 1][i][j] = vi_set(0);
    }
  for (int64_t s = 0; s < k / 4; s += 2)
QUIRE_WRITTEN_OUT
    for (int half = 0; half < 2; half++, b += 128) {
      const Quads w[2] = {quads_signed(b), quads_signed(b + 64)};
QUIRE_WRITTEN_OUT
      for (int i = 0; i < R; i++)
QUIRE_WRITTEN_OUT
        for (int j = 0; j < 2; j++)
          d[half % kSums][i][j] = dot_quads(a[(s + half) * R + i], w[j], d[half % kSums][i][j]);
      Ahead::fetch(ahead);
      Ahead::fetch(ahead);
    }
QUIRE_WRITTEN_OUT
  for (int i = 0; i < R; i++)
QUIRE_WRITTEN_OUT
    for (int j = 0; j < 2; j++)
      store(c + kColumns * i + 16 * j, kSums > 1 ? d[0][i][j] + d[kSums - 1][i][j] : d[0][i][j]);
}

// A weight [N, K] of int8 for rows of type T, which are rounded to 8 bits.
template <class T> struct ByteProduct {
  static const int rows = kRows;
  const uint8_t* weight;
  Layout l;
  int32_t format;
  int64_t blocks;

  ByteProduct(const void* data, int64_t n, int64_t k, int32_t kind)
      : weight((const uint8_t*)data), l(n, k, 0, kind), format(kind), blocks(l.blocks) {}

  static void begin() {}
  static void end() {}
  static size_t temporary_bytes() { return 0; }

  int64_t first(const Groups& groups, int64_t g) const { return groups.begin(g); }
  int64_t sum_rows(const Groups& groups) const { return groups.rows; }
  size_t packed_bytes(const Groups& groups) const { return groups.rows * (l.depth + 8); }
  const uint8_t* block_of(int64_t block) const { return weight + block * l.block_bytes(); }
  const float* scale(int64_t block) const { return (const float*)block_of(block); }

  ByteRows rows_of(const Groups& groups, int64_t g, void* packed) const {
    const int64_t begin = groups.begin(g), quads = groups.rows * l.depth / 4;
    uint32_t* memory = (uint32_t*)packed;
    return {memory + begin * l.depth / 4, (float*)memory + quads + begin,
            (int32_t*)memory + quads + groups.rows + begin};
  }

  void pack(const T* x, const Groups& groups, int64_t g, int i, void* packed) const {
    const ByteRows out = rows_of(groups, g, packed);
    const int count = groups.size(g);
    pack_byte_row(x, l, format, weight, out.steps[i], out.zeros[i], [&](int64_t k, vi code) {
      alignas(16) int8_t bytes[16];
      store8(bytes, code);
      for (int j = 0; j < 4; j++) __builtin_memcpy(out.quads + (k / 4 + j) * count + i, bytes + 4 * j, 4);
    });
  }

  // Whole sums of a group of bytes as float32, in their place.
  void finish_sums(const uint8_t* block, const ByteRows& group, int count, float* sums) const {
    for (int j = 0; j < kColumns; j += 16) {
      const vi columns = load((const int32_t*)(block + kSumsAt) + j);
      for (int i = 0; i < count; i++) {
        float* place = sums + i * kColumns + j;
        const vi sum = load((const int32_t*)place) - vi_set(group.zeros[i]) * columns;
        store(place, to_float(sum) * vf_set(group.steps[i]));
      }
    }
  }

  template <class Done = Nobody>
  void sums(const Groups& groups, const void* packed, int64_t block, float* out, void*, Done done = {}) const {
    const uint8_t* data = block_of(block);
    const int64_t stretch = groups.count > 2 ? kByteStretch : l.depth;
    __builtin_memset(out, 0, (size_t)groups.rows * kColumns * 4);
    for (int64_t k = 0; k < l.depth; k += stretch) {
      const int64_t n = l.depth - k < stretch ? l.depth - k : stretch, here = l.bytes(n);
      const uint8_t* numbers = data + l.head + l.bytes(k);
      for (int64_t g = 0; g < groups.count; g++) {
        Ahead ahead = {(const char*)numbers + kFar, 64};
        if (groups.count > 1) {
          ahead.place = (const char*)numbers + here + g * (here / groups.count) / 64 * 64;
          ahead.step = here / groups.count / (here / 64);
        }
        const int count = groups.size(g);
        const ByteRows rows = rows_of(groups, g, (void*)packed);
        const uint32_t* a = rows.quads + k / 4 * count;
        float* sums = out + groups.begin(g) * kColumns;
        QUIRE_FOR_ROWS(count, (byte_tile<R>(a, numbers, n, (int32_t*)sums, ahead)))
        if (k + n < l.depth) continue;
        finish_sums(data, rows, count, sums);
        done(g);
      }
    }
  }
};

}  // namespace quire
