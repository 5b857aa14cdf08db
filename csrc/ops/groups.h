// What products with packed weights have in common: rows as kernels want them, and how they are grouped.
#pragma once
#include "dot.h"
#include "row_counts.h"

namespace quire {

const int kColumns = 32;          // of a block of packed weights
const int64_t kChunk = 480;       // rows whose packed form lives at once
const int64_t kPrivateRows = 16;  // up to here each thread packs the rows for itself

// What a number type makes of the rows (A) and of the weights (B); one step covers `k` of K.
template <class T> struct Kind { typedef float A; static const int k = 1; };
template <> struct Kind<bf16> { typedef PackedBf16 A; static const int k = 2; };

template <class T>
QUIRE_INLINE void pack_row(const T* x, int64_t K, int64_t steps, int rows, float* out) {
  for (int64_t k = 0; k < K; k += 16) {
    float lanes[16];
    int n = K - k < 16 ? (int)(K - k) : 16;
    store(lanes, load(x + k, n));
    for (int i = 0; i < n; i++) out[(k + i) * rows] = lanes[i];
  }
  for (int64_t s = K; s < steps; s++) out[s * rows] = 0;
}

template <class A, class T>
void tile_of(int rows, const A* a, const T* b, int64_t steps, float* c, bool fresh,
             const char* ahead, int64_t ahead_step) {
  QUIRE_FOR_ROWS(rows, tile<R>(a, b, steps, c, fresh, ahead, ahead_step))
}

// Where each group of rows begins: as few groups as possible, of nearly one size, the smaller ones first.
struct Groups {
  int64_t rows, count, least, smaller;  // rows of a group, and how many groups have no more than that
  explicit Groups(int64_t n, int64_t most = kRows)
      : rows(n), count((n + most - 1) / most), least(count ? n / count : 0), smaller(count ? count - n % count : 0) {}
  int64_t begin(int64_t group) const { return group * least + (group > smaller ? group - smaller : 0); }
  int size(int64_t group) const { return (int)(least + (group >= smaller)); }
  int64_t largest() const { return least + (smaller < count); }
};

}  // namespace quire
