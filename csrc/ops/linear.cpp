// Products with packed weights: out [rows, N] = x [rows, K] * weight.T + delta + bias.
//
// A weight is stored as blocks of 32 columns, k inside, so that one thread reads one stream. A row
// of the result is the sum over k in rising order whatever the number of rows: rows are grouped and
// k is cut only to keep data near, and sums that are put away in between keep all their bits.
#include "groups.h"

namespace quire {
namespace {

const int64_t kAhead = 4096;  // bytes that a single group of rows asks for in advance
const int64_t kNear = 256;    // k of a stretch of weights that stays in the first cache

// The product kernel of a number type: how rows are packed, and a tile of the result.
template <class T> struct Kernel {
  typedef typename Kind<T>::A A;  // [steps][rows]
  static const int k = Kind<T>::k, rows = kRows, per_step = 1;
  static void begin() {}
  static void end() {}
  static int64_t padded(int64_t count) { return count; }

  static void pack_row(const T* x, int64_t K, int64_t steps, int count, int i, A* group) {
    quire::pack_row(x, K, steps, count, group + i);
  }

  static void tile(int count, const A* group, int64_t from, const T* b, int64_t steps, float* c,
                   bool fresh, const char* ahead, int64_t ahead_step) {
    tile_of(count, group + from * count, b, steps, c, fresh, ahead, ahead_step);
  }
};

#ifdef QUIRE_TILES
template <> struct Kernel<bf16> : Tiles {};
#endif

template <class T>
void finish(const QuireArgs_linear& args, int64_t row, int rows, int64_t column, const float* c) {
  const float* bias = (const float*)args.bias;
  const float* delta = (const float*)args.delta;
  for (int i = 0; i < rows; i++) {
    T* out = (T*)args.out + (row + i) * args.out_stride;
    for (int64_t j = 0; j < kColumns && column + j < args.N; j += 16) {
      int n = args.N - column - j < 16 ? (int)(args.N - column - j) : 16;
      vf sum = load(c + kColumns * i + j);
      if (delta) sum = sum + load(delta + (row + i) * args.delta_stride + column + j, n);
      if (bias) sum = sum + load(bias + column + j, n);
      store(out + column + j, sum, n);
    }
  }
}

// All rows of a chunk, packed, times one block of columns.
template <class T>
void multiply(const QuireArgs_linear& args, int64_t start, const Groups& groups, int64_t block,
              const typename Kernel<T>::A* packed, float* sums) {
  typedef Kernel<T> Product;
  const int64_t steps = (args.K + 31) / 32 * 32 / Product::k;
  const int64_t height = Product::padded(groups.largest());
  const int64_t stretch = groups.count > 2 ? kNear / Product::k : steps;
  const T* weight = (const T*)args.weight + block * steps * Product::k * kColumns;
  for (int64_t s = 0; s < steps; s += stretch) {
    int64_t n = steps - s < stretch ? steps - s : stretch;
    const T* here = weight + s * Product::k * kColumns;
    const int64_t bytes = n * Product::k * kColumns * sizeof(T);
    for (int64_t g = 0; g < groups.count; g++) {
      // the next stretch of weights comes nearer while this one is used
      const char* ahead = (const char*)here + kAhead;
      int64_t ahead_step = kColumns * Product::k * sizeof(T);
      if (groups.count > 1) {
        ahead = (const char*)here + bytes + g * (bytes / groups.count) / 64 * 64;
        ahead_step = bytes / groups.count / n;
      }
      Product::tile(groups.size(g), packed + g * height * steps * Product::per_step, s, here, n,
                    sums + g * height * kColumns, s == 0, ahead, ahead_step);
    }
  }
  for (int64_t g = 0; g < groups.count; g++)
    finish<T>(args, start + groups.begin(g), groups.size(g), block * kColumns,
              sums + g * height * kColumns);
}

template <class T>
void product(const QuireArgs_linear& args, Team& team) {
  typedef Kernel<T> Product;
  typedef typename Product::A A;
  const int64_t steps = (args.K + 31) / 32 * 32 / Product::k;
  const int64_t blocks = (args.N + kColumns - 1) / kColumns;
  const int64_t share = blocks / (8 * team.size) > 1 ? blocks / (8 * team.size) : 1;
  const int64_t shares = (blocks + share - 1) / share;
  const bool is_private = args.rows <= kPrivateRows;
  Product::begin();
  int64_t taken = 0;  // shares of earlier chunks, each thread's last and failing try included
  for (int64_t start = 0; start < args.rows; start += kChunk, taken += shares + team.size) {
    Groups groups(args.rows - start < kChunk ? args.rows - start : kChunk, Product::rows);
    const int64_t height = Product::padded(groups.largest());
    size_t a_bytes = (groups.count * height * steps * Product::per_step * sizeof(A) + 63) / 64 * 64;
    size_t c_bytes = (size_t)groups.count * height * kColumns * 4;
    A* packed = is_private ? nullptr : (A*)team.common(a_bytes);
    float* sums = (float*)team.own(c_bytes + (is_private ? a_bytes : 0));
    if (is_private) packed = (A*)((char*)sums + c_bytes);
    int64_t from = 0, to = groups.count;
    if (!is_private) team.part(groups.count, &from, &to);
    for (int64_t g = from; g < to; g++)
      for (int i = 0; i < groups.size(g); i++)
        Product::pack_row((const T*)args.x + (start + groups.begin(g) + i) * args.x_stride, args.K,
                          steps, groups.size(g), i, packed + g * height * steps * Product::per_step);
    if (!is_private) team.barrier();
    for (int64_t next; (next = team.next(0) - taken) < shares;)
      for (int64_t block = next * share; block < blocks && block < (next + 1) * share; block++)
        multiply<T>(args, start, groups, block, packed, sums);
    if (start + kChunk < args.rows) team.barrier();
  }
  Product::end();
}

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
  QUIRE_FOR_DTYPE(args.dtype, T, product<T>(args, team))
}

void pack_linear(const QuireArgs_pack_linear& args, Team& team) {
  switch (args.dtype) {
    case QUIRE_FLOAT32: return pack<f32, uint32_t>(args, team);
    case QUIRE_BFLOAT16: return pack<bf16, uint32_t>(args, team);
    case QUIRE_FLOAT16: return pack<f16, uint16_t>(args, team);
  }
}

}  // namespace quire
