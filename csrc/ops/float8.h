// Products with packed weights in float8, which become bfloat16 or float32 and are multiplied as those are.
#pragma once
#include "quantized.h"

namespace quire {

// Numbers of `k` (even) of 32 columns as the kernels of a type want them; as many further on come nearer.
QUIRE_INLINE void widen(const uint8_t* in, int64_t k, bf16* out) {
  for (int64_t i = 0; i < k * kColumns; i += 64) {
    __builtin_prefetch(in + kFar + i, 0, 2);
    for (int64_t j = i; j < i + 64; j += 32) store((int32_t*)(out + j), pairs_from_fp8(in + j));
  }
}
QUIRE_INLINE void widen(const uint8_t* in, int64_t k, f32* out) {
  for (int64_t s = 0; s < k; s += 2) {
    __builtin_prefetch(in + kFar + s * kColumns, 0, 2);
    for (int j = 0; j < 2; j++) {
      vi pairs = pairs_from_fp8(in + s * kColumns + 32 * j);
      store(out + s * kColumns + 16 * j, as_float(shift_left<16>(pairs)));
      store(out + (s + 1) * kColumns + 16 * j, as_float(pairs & vi_set((int32_t)0xffff0000)));
    }
  }
}

// sums [rows][32] += scale [32] * c [rows][32].
inline void add_scaled(float* sums, const float* c, const float* scale, int rows) {
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < kColumns; j += 16)
      store(sums + kColumns * i + j,
            load(sums + kColumns * i + j) + load(c + kColumns * i + j) * load(scale + j));
}

// A weight [N, K] of float8 for rows of type T; weights become numbers of type W.
template <class T, class W> struct FloatProduct {
  typedef Kernel<W> Use;
  typedef typename Use::A A;
  static const int rows = Use::rows, per = Use::k;
  static const int64_t kStretch = 128;
  const uint8_t* weight;
  Layout l;
  bool one_scale;
  int64_t blocks, steps;

  FloatProduct(const void* data, int64_t n, int64_t k, int64_t group, int32_t format)
      : weight((const uint8_t*)data), l(n, k, group, format), one_scale(group == 0),
        blocks(l.blocks), steps(l.depth / per) {}

  static void begin() { Use::begin(); }
  static void end() { Use::end(); }
  static size_t term_bytes() { return (size_t)rows * kColumns * 4; }
  static size_t temporary_bytes() { return term_bytes() + kStretch * kColumns * sizeof(W); }

  int64_t height(const Groups& groups) const { return Use::padded(groups.largest()); }
  int64_t first(const Groups& groups, int64_t g) const { return g * height(groups); }
  int64_t sum_rows(const Groups& groups) const { return groups.count * height(groups); }
  size_t packed_bytes(const Groups& groups) const { return sum_rows(groups) * steps * Use::per_step * sizeof(A); }
  const uint8_t* block_of(int64_t block) const { return weight + block * l.block_bytes(); }
  const float* scale(int64_t block) const {
    return one_scale ? (const float*)block_of(block) : nullptr;
  }

  void pack(const T* x, const Groups& groups, int64_t g, int i, void* packed) const {
    Kernel<T>::pack_row(x, l.K, steps, groups.size(g), i,
                        (A*)packed + first(groups, g) * steps * Use::per_step);
  }

  void sums(const Groups& groups, const void* packed, int64_t block, float* out,
            void* temporary) const {
    const uint8_t* data = block_of(block);
    float* term = (float*)temporary;
    W* wide = (W*)((char*)temporary + term_bytes());
    __builtin_memset(out, 0, (size_t)sum_rows(groups) * kColumns * 4);
    for (int64_t k = 0; k < l.depth; k += kStretch) {
      int64_t n = l.depth - k < kStretch ? l.depth - k : kStretch;
      const uint8_t* record = data + (one_scale ? l.bytes(k) : k / l.group * l.record_bytes());
      widen(record + l.head, n, wide);
      for (int64_t g = 0; g < groups.count; g++) {
        const int64_t row = first(groups, g);
        const A* a = (const A*)packed + row * steps * Use::per_step;
        float* c = one_scale ? out + row * kColumns : term;
        Use::tile(groups.size(g), a, k / per, wide, n / per, c, !one_scale, (const char*)wide, 0);
        if (!one_scale) add_scaled(out + row * kColumns, term, (const float*)record, groups.size(g));
      }
    }
  }
};

}  // namespace quire
