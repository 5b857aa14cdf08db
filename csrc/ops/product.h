// What a packed weight can do: take rows, and give their products with 32 of its columns.
//
// A product has, for rows in groups that one kernel call takes: the bytes of packed rows, `pack` for one
// row, and `sums` for one block of columns. `first` is where a group's rows stand among the sums.
#pragma once
#include "groups.h"

namespace quire {

const int64_t kAhead = 4096;  // bytes that a single group of rows asks for in advance
const int64_t kNear = 256;    // k of a stretch of weights that stays in the first cache
const int64_t kNearRows = 144;  // rows whose sums stay there too
const int64_t kApartWeight = 4 << 20;  // bytes of a weight that threads read each for itself
const int64_t kApartRows = 384 << 10;  // bytes of packed rows that one of them keeps near

// For sums that nobody waits for one by one.
struct Nobody {
  void operator()(int64_t) const {}
};

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

// A weight [N, K] of floats. It is stored as blocks of 32 columns, k inside, so that one thread reads one
// stream. A row of the result is the sum over k in rising order whatever the number of rows: rows are
// grouped and k is cut only to keep data near, and sums that are put away in between keep all their bits.
template <class T> struct PlainProduct {
  typedef Kernel<T> Use;
  typedef typename Use::A A;
  static const int rows = Use::rows;
  // Float32 has half the multiply-adds for a byte, so that the second cache keeps up with them.
  static const int64_t near = sizeof(T) == 4 ? 2 * kNear : kNear;
  // Tile registers would read the next weights too fast if a part of the rows had to ask for them.
  static const int64_t near_groups = rows > kRows ? INT64_MAX / 2 : kNearRows / rows;
  const T* weight;
  int64_t K, steps, blocks;

  PlainProduct(const void* data, int64_t n, int64_t k)
      : weight((const T*)data), K(k), steps((k + 31) / 32 * 32 / Use::k),
        blocks((n + kColumns - 1) / kColumns) {}

  static void begin() { Use::begin(); }
  static void end() { Use::end(); }
  static size_t temporary_bytes() { return 0; }

  int64_t height(const Groups& groups) const { return Use::padded(groups.largest()); }
  int64_t first(const Groups& groups, int64_t g) const { return g * height(groups); }
  int64_t sum_rows(const Groups& groups) const { return groups.count * height(groups); }
  size_t packed_bytes(const Groups& groups) const {
    return sum_rows(groups) * steps * Use::per_step * sizeof(A);
  }
  const float* scale(int64_t) const { return nullptr; }

  void pack(const T* x, const Groups& groups, int64_t g, int i, void* packed) const {
    Use::pack_row(x, K, steps, groups.size(g), i,
                  (A*)packed + first(groups, g) * steps * Use::per_step);
  }

  // `done` is called with each group as soon as its sums are whole, while they are near.
  template <class Done = Nobody>
  void sums(const Groups& groups, const void* packed, int64_t block, float* out, void*,
            Done done = {}) const {
    const int64_t tall = height(groups), stretch = groups.count > 2 ? near / Use::k : steps;
    const T* data = weight + block * steps * Use::k * kColumns;
    const int64_t parts = (groups.count + near_groups - 1) / near_groups;
    for (int64_t part = 0; part < parts; part++) {
      const int64_t from = groups.count * part / parts, to = groups.count * (part + 1) / parts;
      for (int64_t s = 0; s < steps; s += stretch) {
        int64_t n = steps - s < stretch ? steps - s : stretch;
        const T* here = data + s * Use::k * kColumns;
        const int64_t bytes = n * Use::k * kColumns * sizeof(T);
        for (int64_t g = from; g < to; g++) {
          // the next stretch of weights comes nearer while this one is used
          const char* ahead = (const char*)here + kAhead;
          int64_t ahead_step = kColumns * Use::k * sizeof(T);
          if (groups.count > 1) {
            const int64_t each = bytes / (to - from);
            ahead = (const char*)here + bytes + (g - from) * each / 64 * 64;
            ahead_step = each / n;
          }
          Use::tile(groups.size(g), (const A*)packed + g * tall * steps * Use::per_step, s, here, n,
                    out + g * tall * kColumns, s == 0, ahead, ahead_step);
          if (s + n == steps) done(g);
        }
      }
    }
  }
};

// sums * scale + delta + bias of rows of the output of `linear`, rounded once to the output's type T.
template <class T, class Args>
void finish_as(const Args& args, int64_t row, int rows, int64_t column, const float* c,
               const float* scale) {
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

// The same for an output of x's type T, or of float32 where `is_wide`.
template <class T, class Args>
void finish(const Args& args, int64_t row, int rows, int64_t column, const float* c,
            const float* scale) {
  if (args.is_wide) return finish_as<f32>(args, row, rows, column, c, scale);
  finish_as<T>(args, row, rows, column, c, scale);
}

// One block of columns of all groups, each finished when its sums are whole.
template <class P, class Done>
void each_group_of(long, const P& product, const Groups& groups, const void* packed, int64_t block,
                   float* sums, void* temporary, Done done) {
  product.sums(groups, packed, block, sums, temporary);
  for (int64_t g = 0; g < groups.count; g++) done(g);
}

// What is written meanwhile finds its way to memory beside the next group's products, where a product says
// when a group is whole.
template <class P, class Done>
auto each_group_of(int, const P& product, const Groups& groups, const void* packed, int64_t block,
                   float* sums, void* temporary, Done done)
    -> decltype(product.sums(groups, packed, block, sums, temporary, done)) {
  product.sums(groups, packed, block, sums, temporary, done);
}

template <class P, class Done>
void each_group(const P& product, const Groups& groups, const void* packed, int64_t block,
                float* sums, void* temporary, Done done) {
  each_group_of(0, product, groups, packed, block, sums, temporary, done);
}

inline size_t whole_lines(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Whether threads read a whole weight each, for rows of their own; only plain weights are as cheap to
// read twice.
template <class P> int64_t bytes_of_row(const P&) { return 0; }
template <class T> int64_t bytes_of_row(const PlainProduct<T>& product) {
  typedef typename PlainProduct<T>::Use Use;
  const int64_t row = product.steps * Use::per_step * sizeof(typename Use::A);
  const int64_t weight = product.blocks * product.steps * Use::k * kColumns * sizeof(T);
  return weight <= kApartWeight ? row : 0;
}

// How many equal pieces rows make of which each thread takes some, a multiple of the team; 0 if they
// would be too small to be worth a pass over the weight.
template <class P> int64_t pieces_of(const P& product, int64_t rows, int32_t threads) {
  const int64_t bytes = bytes_of_row(product);
  if (!bytes) return 0;
  int64_t most = kApartRows / bytes < kChunk ? kApartRows / bytes : kChunk;
  if (most < 4 * product.rows) return 0;
  int64_t count = ((rows + most - 1) / most + threads - 1) / threads * threads;
  return rows / count < 4 * product.rows ? 0 : count;
}

// The same product: each thread takes pieces of the rows, packs them for itself and passes over all
// columns, so that nobody waits for others and packed rows stay in its own cache.
template <class T, class P, class Args>
void multiply_apart(const Args& args, const P& product, Team& team, int64_t pieces) {
  product.begin();
  for (int64_t piece; (piece = team.next(0)) < pieces;) {
    const int64_t start = args.rows * piece / pieces;
    Groups groups(args.rows * (piece + 1) / pieces - start, product.rows);
    const size_t c_bytes = (size_t)product.sum_rows(groups) * kColumns * 4;
    char* room = (char*)team.own(c_bytes + product.packed_bytes(groups));
    float* sums = (float*)room;
    void* packed = room + c_bytes;
    for (int64_t g = 0; g < groups.count; g++)
      for (int i = 0; i < groups.size(g); i++)
        product.pack((const T*)args.x + (start + groups.begin(g) + i) * args.x_stride, groups, g, i,
                     packed);
    for (int64_t b = 0; b < product.blocks; b++)
      each_group(product, groups, packed, b, sums, nullptr, [&](int64_t g) {
        finish<T>(args, start + groups.begin(g), groups.size(g), b * kColumns,
                  sums + product.first(groups, g) * kColumns, product.scale(b));
      });
  }
  product.end();
}

// out [rows, N] = x [rows, K] times the weight of `product`; rows of x and out are of type T.
template <class T, class P, class Args>
void multiply(const Args& args, const P& product, Team& team) {
  if (int64_t pieces = pieces_of(product, args.rows, team.size))
    return multiply_apart<T>(args, product, team, pieces);
  const int64_t share = product.blocks / (8 * team.size) > 1 ? product.blocks / (8 * team.size) : 1;
  const int64_t shares = (product.blocks + share - 1) / share;
  const bool is_private = args.rows <= kPrivateRows;
  product.begin();
  for (int64_t start = 0; start < args.rows; start += kChunk) {
    Groups groups(args.rows - start < kChunk ? args.rows - start : kChunk, product.rows);
    size_t a_bytes = whole_lines(product.packed_bytes(groups));
    size_t c_bytes = (size_t)product.sum_rows(groups) * kColumns * 4;
    void* packed = is_private ? nullptr : team.common(a_bytes);
    char* room = (char*)team.own(c_bytes + P::temporary_bytes() + (is_private ? a_bytes : 0));
    float* sums = (float*)room;
    void* temporary = room + c_bytes;
    if (is_private) packed = room + c_bytes + P::temporary_bytes();
    int64_t from = 0, to = groups.count;
    if (!is_private) team.part(groups.count, &from, &to);
    for (int64_t g = from; g < to; g++)
      for (int i = 0; i < groups.size(g); i++)
        product.pack((const T*)args.x + (start + groups.begin(g) + i) * args.x_stride, groups, g, i,
                     packed);
    if (!is_private) team.barrier();
    Shares left(team, shares, start / kChunk);
    for (int64_t next; (next = left.next()) >= 0;)
      for (int64_t b = next * share; b < product.blocks && b < (next + 1) * share; b++)
        each_group(product, groups, packed, b, sums, temporary, [&](int64_t g) {
          finish<T>(args, start + groups.begin(g), groups.size(g), b * kColumns,
                    sums + product.first(groups, g) * kColumns, product.scale(b));
        });
    if (start + kChunk < args.rows) team.barrier();
  }
  product.end();
}

}  // namespace quire
